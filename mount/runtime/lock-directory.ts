/**
 * flock(2) on a directory of the runtime directory: what is read and changed in it under the lock is one step among all
 * processes. There is no lock file that would have to be left behind or removed, and the kernel gives the lock up with its
 * process.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { FusetapError } from '../../drivers/errors.js';
import { tryFlockExclusive } from '../../system/libc.js';
import { until } from '../../system/until.js';

const POLL_MS = 2;

/**
 * Takes the lock. Holders do no more than read and write a few small files.
 * @param what is locked, for the message, as `the minors`
 * @returns a descriptor: the lock lasts until it is closed
 * @throws FusetapError BUSY where somebody keeps it for longer than `timeoutMs`
 */
export async function lockDirectory(path: string, what: string, timeoutMs = 10_000): Promise<number> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    if (await until(() => tryFlockExclusive(fd), { timeoutMs, everyMs: POLL_MS })) return fd;
    throw new FusetapError('BUSY', `${what} are locked for longer than ${timeoutMs / 1000} s: ${path}`, {
      hint: `find who holds it with lslocks, or fuser -v ${path}`,
      path,
    });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
