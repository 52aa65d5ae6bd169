/**
 * flock(2) on a directory in the runtime directory: reads and changes in it under the lock are atomic among all
 * processes. No lock file has to be left behind or removed, and the kernel releases the lock when the process ends.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { FusetapError } from '../../drivers/errors.js';
import { tryFlockExclusive } from '../../system/libc.js';
import { until } from '../../system/until.js';

const POLL_MS = 2;

/**
 * Takes the lock. A process may keep it only while it reads and writes a few small files.
 * @param what the name for the message, as `the minors`
 * @returns a descriptor: the lock lasts until it is closed
 * @throws FusetapError BUSY if another process keeps it for longer than `timeoutMs`
 */
export async function lockDirectory(path: string, what: string, timeoutMs = 10_000): Promise<number> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (await until(() => tryFlockExclusive(fd), { timeoutMs, everyMs: POLL_MS })) return fd;
    throw new FusetapError('BUSY', `${what} are locked for longer than ${timeoutMs / 1000} s: ${path}`, {
      hint: `find the process that has the lock with lslocks, or fuser -v ${path}`,
      path,
    });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
