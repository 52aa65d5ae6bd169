/**
 * Keeps exporters that start at once on one path from each other: both would find the socket of a dead server there, and one
 * would remove the socket that the other has just made.
 *
 * The lock is that of the directory, so no file is left, and it is free when its holder dies.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { tryFlockExclusive } from '../../system/libc.js';
import { until } from '../../system/until.js';

/** several exporters in turn may each have to wait for an answer at the socket */
const MOST_MS = 10_000;
const POLL_MS = 20;

/**
 * Does a work for a path while no other process does one in that directory.
 * @throws what the work throws
 */
export async function alone(path: string, work: () => Promise<void>): Promise<void> {
  const directory = dirname(path);
  const fd = openIfPossible(directory);
  if (fd === null) return await work();
  try {
    // anybody who may read the directory can lock it for ever: then there is no lock
    await until(() => isLocked(fd), { timeoutMs: MOST_MS, everyMs: POLL_MS });
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
