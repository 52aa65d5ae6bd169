import { appendFileSync, closeSync, existsSync, mkdirSync, readFileSync, rmSync, statSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { followLog, readLog } from '../../../mount/client/log.js';
import type { BusPlace } from '../../../mount/runtime/bus-place.js';
import { openLog, shortenLog } from '../../../mount/runtime/log.js';
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
    readLog(place).map(({ record }) => record),
    [
      { event: 'note', text: 'first' },
      { event: 'output', text: 'Error: crash' },
      { event: 'output', text: '    at x' },
      { event: 'note', text: 'last' },
    ],
  );
});

t.test('is followed through its move to log.1, until the bus is gone', async (t) => {
  const place = aPlace(t);
  const fd = openLog(place.stateDir);
  t.teardown(() => closeSync(fd));
  const seen: string[] = [];
  writeSync(fd, 'one\n');
  const steps: (() => void)[] = [
    () => writeSync(fd, 'two, '),
    () => writeSync(fd, 'still two\n'),
    () => {
      writeSync(fd, 'three\n');
      shortenLog(place.stateDir, fd, 1);
      writeSync(fd, 'four\n');
    },
    () => rmSync(place.stateDir, { recursive: true }),
  ];
  const timer = setInterval(() => steps.shift()?.(), 250);
  t.teardown(() => clearInterval(timer));
  for await (const { text } of followLog(place)) seen.push(text);
  t.same(seen, ['one', 'two, still two', 'three', 'four']);
});
