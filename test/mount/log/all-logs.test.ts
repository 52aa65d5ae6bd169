/** The logs of all buses: what is no log must not hide the others. */
import { appendFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { followLogs, OpenLogs, readLogs } from '../../../mount/log/all-logs.js';
import { tempDir } from '../../cli/fake-bus.js';

const line = (pid: number): string =>
  `${JSON.stringify({ time: `2026-01-01T00:00:0${pid}.000Z`, event: 'server-started', pid })}\n`;

t.test('stray files in the directories of buses', async (t) => {
  const runtime = tempDir(t);
  const log = join(runtime, 'state', '0', 'log');
  // a directory in place of a log, too, of a bus that runs and of one that has ended
  for (const path of ['state/0', 'state/a/log', 'state/c', 'ended/d/log'])
    mkdirSync(join(runtime, path), { recursive: true });
  for (const path of ['state/b', 'ended/e']) writeFileSync(join(runtime, path), 'stray');
  writeFileSync(log, line(1));
  t.same(
    readLogs(runtime).map(({ bus }) => bus),
    ['0'],
  );
  const logs = new OpenLogs(runtime);
  t.teardown(() => logs.close());
  const pids = (): unknown[] => logs.take().map(({ record }) => 'pid' in record && record.pid);
  t.same(pids(), [1]);
  t.same(pids(), [], 'none is told twice');
  appendFileSync(log, line(2));
  t.same(pids(), [2]);
  const over = new AbortController();
  const followed: string[] = [];
  for await (const { bus } of followLogs(runtime, over.signal)) {
    followed.push(bus);
    if (followed.length === 2) over.abort();
  }
  t.same(followed, ['0', '0']);
});

t.test('of long logs, only the end is read if that is asked for', async (t) => {
  const runtime = tempDir(t);
  for (const bus of ['state/0', 'ended/1']) {
    mkdirSync(join(runtime, bus), { recursive: true });
    writeFileSync(join(runtime, bus, 'log.1'), line(0));
    writeFileSync(join(runtime, bus, 'log'), [1, 2, 3].map(line).join(''));
  }
  const logs = new OpenLogs(runtime, 2 * line(1).length + 5);
  t.teardown(() => logs.close());
  const pids = (): unknown[] => logs.take().map(({ bus, record }) => `${bus} ${'pid' in record && record.pid}`);
  t.same(pids().sort(), ['0 2', '0 3', '1 2', '1 3']);
  appendFileSync(join(runtime, 'state/0/log'), line(4));
  t.same(pids(), ['0 4']);
});
