/** The cleanup after the last process of a user's bus has ended, with a helper that only prints its arguments. */
import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { chmod, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { dir as temporaryDirectory } from 'tmp-promise';
import { unmountAtEnd } from '../../../../mount/fuse/mounting/auto-unmount.js';
import { eventually } from '../../../e2e/command.js';

t.setTimeout(120_000);

/** @param lockedMs how long another process has the lock of the bus */
async function endOfBus(t: Test, lockedMs: number): Promise<() => Promise<string>> {
  const { path, cleanup } = await temporaryDirectory({ unsafeCleanup: true });
  t.teardown(cleanup);
  const [helper, lockPath, log] = ['helper', 'lock', 'log'].map((name) => join(path, name)) as [string, string, string];
  await writeFile(helper, `#!/bin/sh\necho "$@" >> ${log}\n`);
  await chmod(helper, 0o755);
  await writeFile(lockPath, '');
  if (lockedMs > 0) {
    const holder = spawn('flock', [lockPath, 'sh', '-c', `echo locked; sleep ${lockedMs / 1000}`], { detached: true });
    await new Promise((resolve) => holder.stdout.once('data', resolve));
    t.teardown(() => endGroup(holder.pid as number));
  }
  closeSync(unmountAtEnd(join(path, 'not-there'), helper, { lockPath, removesDirectory: false }));
  return () => readFile(log, 'utf8').catch(() => '');
}

t.test('the bus is unmounted', async (t) => {
  const asked = await endOfBus(t, 0);
  await eventually('the helper is asked', 20_000, async () => (await asked()) !== '');
  t.match(await asked(), /^-u -z -q -- .*not-there\n$/);
});

t.test('a process that is still exiting has the lock', async (t) => {
  const asked = await endOfBus(t, 1_500);
  await eventually('the helper is asked', 20_000, async () => (await asked()) !== '');
});

t.test('another keeper has the lock', async (t) => {
  const asked = await endOfBus(t, 60_000);
  await delay(7_000);
  t.equal(await asked(), '', 'what that one has mounted stays');
});

function endGroup(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
