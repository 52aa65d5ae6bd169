/** scripts/torture: what counts as a leak, and wrong arguments. It is not run here: test/survival/ has such tests. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import t from 'tap';
import { type Deeds, type Holdings, leaks, printFigures } from '../../scripts/lib/torture/figures.js';

const RUN = fileURLToPath(new URL('../../scripts/lib/torture/run.js', import.meta.url));
const MIB = 1 << 20;
const HOLDINGS: Holdings = {
  keeperBytes: 66 * MIB,
  serverBytes: 210 * MIB,
  fds: 315,
  mounts: 3,
  files: 12,
  processes: 6,
};
const DEEDS: Deeds = { kills: 7, upgrades: 6, stops: 5, attaches: 4, detaches: 3, verified: 2 };

t.test('one more of any resource is a leak, except memory that may be garbage', async (t) => {
  t.same(leaks(HOLDINGS, HOLDINGS), []);
  for (const name of ['fds', 'mounts', 'files', 'processes'] as const) {
    const after = { ...HOLDINGS, [name]: HOLDINGS[name] + 1 };
    t.same(leaks(HOLDINGS, after), [`${name}: ${HOLDINGS[name]} before, ${after[name]} after`]);
    t.same(leaks(after, HOLDINGS), [], 'fewer is none');
  }
  for (const name of ['keeperBytes', 'serverBytes'] as const) {
    t.same(leaks(HOLDINGS, { ...HOLDINGS, [name]: HOLDINGS[name] + 54 * MIB }), []);
    t.match(leaks(HOLDINGS, { ...HOLDINGS, [name]: HOLDINGS[name] + 54 * MIB + 1 }), [new RegExp(`^${name}: `)]);
  }
});

t.test('the figures', async (t) => {
  const text = printFigures(DEEDS, { errors: ['bus t0: stop: gone'], mismatches: 1, hasFailedBus: false }, [
    'fds: 1 before, 2 after',
  ]);
  for (const line of [
    'kills      7',
    'verified   2',
    'errors     1',
    '  bus t0: stop: gone',
    'mismatches 1',
    'leaks      1',
  ]) {
    t.ok(text.split('\n').includes(line), line);
  }
});

t.test('wrong arguments', async (t) => {
  for (const [words, says] of [
    [['--minutes', '0'], /^torture: --minutes takes a number above 0, not 0\n$/],
    [['--kills', 'many'], /^torture: --kills takes a number above 0, not many\n$/],
    [['--hours', '1'], /^torture: .*--hours.*scripts\/torture --help\n$/],
  ] as const) {
    const outcome = await promisify(execFile)(process.execPath, [RUN, ...words]).catch((error: unknown) => error);
    t.match(outcome, { code: 2, stdout: '', stderr: says }, words.join(' '));
  }
});
