/** The tables of `fusetap top`: never wider than the terminal, whatever names contain. */
import fc from 'fast-check';
import t from 'tap';
import { cutEnd, cutStart, fitTable, widthOf, wrap } from '../../../cli/top/fit.js';
import { afterKey, FIRST_CHOICES, screenLines } from '../../../cli/top/view.js';
import { BUS_COLUMNS, sortVbds, VBD_COLUMNS } from '../../../cli/watching/rows.js';
import { shortBytes, shortCount, shortPercent, shortTime } from '../../../cli/watching/words.js';
import type { BusRates, KindRates, VbdRates } from '../../../mount/client/watching/rates.js';

const KIND: KindRates = {
  ...{ perSecond: 0, bytesPerSecond: 0, latencyUs: { p50: null, p99: null } },
  ...{ newErrors: 0, requests: 0, bytes: 0, errors: 0 },
};

function aVbd(changes: Partial<VbdRates> = {}): VbdRates {
  return {
    ...{ bus: '0', vdev: 'xvda', disk: null, driver: 'aio', image: '/srv/images/disk.img', mode: 'w', size: 1 << 20 },
    ...{ state: 'running', passthrough: false, broken: null, imageState: null, opens: 0 },
    ...{ perSecond: 0, bytesPerSecond: 0, latencyUs: { p50: null, p99: null }, queue: 0, inProgress: 0, oldestMs: 0 },
    ...{ flushErrors: 0, read: KIND, write: KIND, flush: KIND, discard: KIND },
    ...changes,
  };
}

function aBus(changes: Partial<BusRates> = {}): BusRates {
  const process = { pid: 1, cpuPercent: 12.3, rssBytes: 100 << 20, pssBytes: 80 << 20 };
  return {
    ...{ bus: '0', path: '/run/fusetap/bus/0', state: 'running', trouble: null, seconds: 1, restarts: 0 },
    ...{ newRestarts: 0, keeper: process, server: process, waiting: 3, vbds: [aVbd()] },
    ...changes,
  };
}

const busy = (reads: number): Partial<VbdRates> => ({ perSecond: reads, read: { ...KIND, perSecond: reads } });
const shown = (buses: BusRates[]) => ({ buses, at: new Date(0), intervalMs: 1000 });

/** Without the sequences that set colours. */
function plain(line: string): string {
  return line.replaceAll('\x1b[1m', '').replaceAll('\x1b[7m', '').replaceAll('\x1b[0m', '');
}

t.test('figures are short', async (t) => {
  t.same([0, 0.04, 1.26, 9.99, 12.6, 9999, 10_400, 12_345_678].map(shortCount), [
    ...['0', '0', '1.3', '10', '13', '9999', '10k', '12M'],
  ]);
  t.same([0, 100.4, 4096, 1.5 * 2 ** 20].map(shortBytes), ['0', '100', '4K', '1.5M']);
  t.same([null, 0.26, 5.04, 9.96, 999.4, 999.6, 9949, 12_345, 999_600, 17e6].map(shortTime), [
    ...['-', '0.3us', '5us', '10us', '999us', '1ms', '9.9ms', '12ms', '1s', '17s'],
  ]);
  t.same([0, 0.04, 99.96, 200].map(shortPercent), ['0%', '0%', '100%', '200%']);
});

t.test('names are cut to the width of the terminal, not to a number of characters', async (t) => {
  t.equal(cutEnd('abcdef', 4), 'abc…');
  t.equal(cutStart('/srv/disk.img', 8), '…isk.img');
  t.equal(cutStart('/日本語.img', 8), '…語.img', 'a wide character takes two columns');
  t.equal(cutEnd('日本語', 4), '日…');
  t.equal(cutEnd('e\u0301e\u0301e\u0301', 2), 'e\u0301…', 'an accent takes none, and stays with its letter');
  t.equal(cutStart('abc', 0), '');
  t.same(wrap('h        this help; any key ends it', 20, 2), ['h        this help;', '  any key ends it']);
});

t.test('no line is wider than the terminal, for any name, and none has a control character', async () => {
  const name = fc.string({ unit: 'grapheme', maxLength: 200 });
  const rate = fc.double({ min: 0, max: 1e9, noNaN: true });
  const size = fc.record({ columns: fc.integer({ min: 1, max: 200 }), rows: fc.integer({ min: 1, max: 60 }) });
  const bytes = fc.string({ unit: 'binary', maxLength: 60 });
  fc.assert(
    fc.property(fc.array(fc.tuple(name, bytes, rate), { maxLength: 20 }), size, fc.boolean(), (all, size, isHelp) => {
      const vbds = all.map(([image, vdev, reads]) => aVbd({ image, vdev, ...busy(reads) }));
      const buses = all
        .slice(0, 3)
        .map(([, bus], i) => aBus({ bus: `${bus}${i}`, trouble: bus, vbds: i === 0 ? vbds : [] }));
      const lines = screenLines(shown(buses), { ...FIRST_CHOICES, isHelp }, size);
      const wrong = lines.map(plain).filter((line) => widthOf(line) > size.columns || /\p{Cc}/u.test(line));
      return lines.length <= size.rows && wrong.length === 0;
    }),
    { numRuns: 100 },
  );
});

t.test('a narrow terminal leaves out columns, the least important first', async (t) => {
  const heads = (width: number): string[] =>
    (fitTable(VBD_COLUMNS, [aVbd(busy(100))], width)[0]?.text ?? '').split(/ +/).filter((head) => head !== '');
  t.equal(heads(200).length, VBD_COLUMNS.length);
  t.notOk(heads(80).includes('D/S'), 'discards go first');
  t.ok(heads(40).includes('P99'));
  t.same(heads(12), ['VDEV', 'P99'], 'what is left of all');
  t.same(heads(6), ['VDEV']);
  t.match(fitTable(BUS_COLUMNS, [aBus()], 20)[1]?.text, /^0 +running$/);
});

t.test('the busiest first, or by a column, or reversed; buses with numbers in their order', async (t) => {
  const vbds = [aVbd({ vdev: 'a', ...busy(1) }), aVbd({ vdev: 'b', ...busy(3) }), aVbd({ vdev: 'c', ...busy(2) })];
  const names = (key: string, isReversed = false) => sortVbds(vbds, key, isReversed).map(({ vdev }) => vdev);
  t.same(names(''), ['b', 'c', 'a']);
  t.same(names('reads', true), ['a', 'c', 'b']);
  t.same(names('vdev'), ['a', 'b', 'c']);
  const buses = ['10', '9', 'x'].map((bus) => aVbd({ bus }));
  t.same(
    sortVbds(buses, 'bus', false).map(({ bus }) => bus),
    ['9', '10', 'x'],
  );
});

t.test('keys', async (t) => {
  t.equal(afterKey(FIRST_CHOICES, 'q', 10), null);
  t.equal(afterKey(FIRST_CHOICES, 'ctrl-c', 10), null);
  t.equal(afterKey(FIRST_CHOICES, '>', 10)?.sort, 'bus');
  t.equal(afterKey(FIRST_CHOICES, '<', 10)?.sort, 'image', 'in a circle');
  t.equal(afterKey(FIRST_CHOICES, 'r', 10)?.isReversed, true);
  t.equal(afterKey(FIRST_CHOICES, 'space', 10)?.isPaused, true);
  t.equal(afterKey({ ...FIRST_CHOICES, isHelp: true }, 'x', 10)?.isHelp, false);
  t.equal(afterKey(FIRST_CHOICES, 'pagedown', 10)?.top, 10);
  t.equal(afterKey(FIRST_CHOICES, 'up', 10)?.top, 0);
  t.equal(afterKey(FIRST_CHOICES, 'x', 10), FIRST_CHOICES);
});

t.test('buses in trouble are shown, and why; many buses leave room for vbds', async (t) => {
  const quiet = Array.from({ length: 50 }, (_, i) => aBus({ bus: `bus${i}`, vbds: i === 0 ? [aVbd(busy(7))] : [] }));
  const dead = aBus({ bus: 'dead', state: 'dead', server: null, keeper: null, vbds: [], trouble: 'bus dead is dead' });
  const lines = screenLines(shown([...quiet, dead]), FIRST_CHOICES, { columns: 80, rows: 24 }).map(plain);
  t.ok(lines.some((line) => /^dead +dead/.test(line)));
  t.ok(lines.includes('bus dead is dead'));
  t.ok(lines.some((line) => /^and \d+ more buses$/.test(line)));
  t.ok(lines.some((line) => /^0 +xvda/.test(line)));
  t.match(screenLines(shown([]), FIRST_CHOICES, { columns: 80, rows: 24 })[2], /^no bus runs/);
});

t.test('a disk that hangs does not look idle', async (t) => {
  const hangs = aVbd({ inProgress: 4, queue: 0 });
  const [, line] = fitTable(VBD_COLUMNS, [hangs], 200);
  t.match(line?.text, / 4 +running/);
});
