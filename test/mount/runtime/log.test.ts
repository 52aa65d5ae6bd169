import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { followLog, readLog } from '../../../mount/log/read-log.js';
import type { BusPlace } from '../../../mount/runtime/bus-place.js';
import { keepEndedLog } from '../../../mount/runtime/ended-logs.js';
import { shortenLog } from '../../../mount/runtime/log.js';
import { openLog } from '../../../mount/runtime/log-line.js';
import { tryFlockExclusive } from '../../../system/libc.js';
import { tempDir } from '../../cli/fake-bus.js';

function aPlace(t: Test): BusPlace {
  const runtimeDir = tempDir(t);
  const stateDir = join(runtimeDir, 'state', '0');
  mkdirSync(stateDir, { recursive: true });
  return { name: '0', path: join(runtimeDir, 'bus', '0'), stateDir, runtimeDir, ownDirectory: false };
}

t.test('what is too long goes to log.1, and the file stays the same one', async (t) => {
  const { stateDir } = aPlace(t);
  const fd = openLog(stateDir);
  t.teardown(() => closeSync(fd));
  const { ino } = statSync(join(stateDir, 'log'));
  writeSync(fd, 'one\n');
  shortenLog(stateDir, fd, 4);
  t.notOk(existsSync(join(stateDir, 'log.1')), 'not yet');
  writeSync(fd, 'two\n');
  shortenLog(stateDir, fd, 4);
  t.equal(readFileSync(join(stateDir, 'log.1'), 'utf8'), 'one\ntwo\n');
  writeSync(fd, 'three\n');
  t.equal(readFileSync(join(stateDir, 'log'), 'utf8'), 'three\n', 'at the start, without a hole');
  t.equal(statSync(join(stateDir, 'log')).ino, ino);
  t.equal(statSync(join(stateDir, 'log')).mode & 0o777, 0o600);
});

const LAST = '{"time":"2026-01-31T12:00:01.000Z","event":"note","text":"last"}';

t.test('is read with what came before', async (t) => {
  const place = aPlace(t);
  t.throws(() => readLog(place), { code: 'NOT_FOUND' });
  appendFileSync(join(place.stateDir, 'log.1'), '{"time":"2026-01-31T12:00:00.000Z","event":"note","text":"first"}\n');
  appendFileSync(join(place.stateDir, 'log'), `Error: crash\n    at x\n${LAST}\n`);
  t.match(
    readLog(place).lines.map(({ record }) => record),
    [
      { event: 'note', text: 'first' },
      { event: 'output', text: 'Error: crash' },
      { event: 'output', text: '    at x' },
      { event: 'note', text: 'last' },
    ],
  );
});

/** A bus that runs, as far as others can see: somebody has its lock. */
function aRunningBus(t: Test): { place: BusPlace; fd: number; die(): void } {
  const place = aPlace(t);
  const lock = openSync(join(place.stateDir, 'lock'), 'w');
  t.ok(tryFlockExclusive(lock));
  const fd = openLog(place.stateDir);
  t.teardown(() => closeSync(fd));
  return { place, fd, die: () => closeSync(lock) };
}

/** Follows the log; after each step waits until its last line was seen. */
async function followSteps(
  place: BusPlace,
  steps: readonly (readonly [lastLine: string | null, step: () => void])[],
): Promise<{ seen: string[]; hasDied: boolean | undefined }> {
  const seen: string[] = [];
  const todo = [...steps];
  const log = followLog(place);
  for (;;) {
    while (todo[0] !== undefined && (todo[0][0] === null || todo[0][0] === seen.at(-1))) todo.shift()?.[1]();
    const { value, done } = await log.next();
    if (done) return { seen, hasDied: value };
    seen.push(value.text);
  }
}

t.test('is followed through its move to log.1, until the bus is gone', async (t) => {
  const { place, fd, die } = aRunningBus(t);
  writeSync(fd, 'one\n');
  const { seen, hasDied } = await followSteps(place, [
    [
      'one',
      () => {
        writeSync(fd, 'two, ');
        setTimeout(() => writeSync(fd, 'still two\n'), 250);
      },
    ],
    [
      'two, still two',
      () => {
        writeSync(fd, 'three\n');
        shortenLog(place.stateDir, fd, 1);
        writeSync(fd, 'four\n');
      },
    ],
    [
      'four',
      () => {
        // all at once, as a bus ends: what it wrote last is not lost
        writeSync(fd, 'last\n');
        keepEndedLog(place);
        rmSync(place.stateDir, { recursive: true });
        die();
      },
    ],
  ]);
  t.same(seen, ['one', 'two, still two', 'three', 'four', 'last']);
  t.equal(hasDied, false);
  t.match(
    readLog(place),
    { isLastRun: true, lines: [{ text: 'one' }, {}, {}, {}, { text: 'last' }] },
    'and it is kept',
  );
});

t.test('ends when the processes of the bus are gone', async (t) => {
  const { place, fd, die } = aRunningBus(t);
  writeSync(fd, 'one\n');
  const { seen, hasDied } = await followSteps(place, [['one', die]]);
  t.same(seen, ['one']);
  t.equal(hasDied, true);
});

t.test('the logs of the last buses are kept', async (t) => {
  const place = aPlace(t);
  const end = (name: string): void => {
    const stateDir = join(place.runtimeDir, 'state', name);
    mkdirSync(stateDir, { recursive: true });
    appendFileSync(join(stateDir, 'log'), `${name}\n`);
    keepEndedLog({ ...place, name, stateDir });
    // as far apart as the clock of the file system can tell
    utimesSync(join(place.runtimeDir, 'ended', name), 1_000 + Number(name), 1_000 + Number(name));
  };
  for (let i = 1; i <= 25; i++) end(String(i));
  t.same(
    readdirSync(join(place.runtimeDir, 'ended'))
      .map(Number)
      .sort((a, b) => a - b),
    [...Array.from({ length: 20 }, (_, i) => i + 6)],
  );
  end('25');
  t.equal(readFileSync(join(place.runtimeDir, 'ended', '25', 'log'), 'utf8'), '25\n', 'one for each name');
});
