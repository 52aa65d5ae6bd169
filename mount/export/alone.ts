/**
 * Keeps exporters that start at once on one path from each other: both would find the socket of a dead server there, and one
 * would remove the socket that the other has just made.
 *
 * The lock is that of the directory, so no file is left, and it is free when its holder dies.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { tryFlockExclusive } from '../../system/libc.js';
import { until } from '../../system/until.js';

/** several exporters in turn may each have to wait for an answer at the socket */
const MOST_MS = 10_000;
const POLL_MS = 20;

/**
 * Does a work for a path while no other process does one in that directory.
 * @throws FusetapError BUSY if another one does not come to its end; what the work throws
 */
export async function alone(path: string, work: () => Promise<void>): Promise<void> {
  const directory = dirname(path);
  const fd = openIfPossible(directory);
  if (fd === null) return await work();
  try {
    if (!(await until(() => isLocked(fd), { timeoutMs: MOST_MS, everyMs: POLL_MS }))) {
      throw new FusetapError('BUSY', `another program keeps ${named(directory)} locked`, {
        hint: 'give another path, or end that program: lslocks shows it',
      });
    }
    await work();
  } finally {
    closeSync(fd);
  }
}

/** @returns null if it cannot be opened: then the work says why, or there is no lock */
function openIfPossible(directory: string): number | null {
  try {
    return openSync(directory, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch {
    return null;
  }
}

/** Some file systems on a network lock no directories: then there is no lock. */
function isLocked(fd: number): boolean {
  try {
    return tryFlockExclusive(fd);
  } catch {
    return true;
  }
}
