/**
 * The lock on the ram images of a runtime directory: reads and changes under it are atomic among all keepers.
 *
 * It is flock(2) on the directory ram/ itself, so no lock file has to be left behind or removed. The kernel releases it
 * when the process ends.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { tryFlockExclusive } from '../../system/libc.js';

/** a process keeps the lock only while it reads and writes a few small files */
const LIMIT_MS = 10_000;
const POLL_MS = 2;

/** The directory of the links of ram images. */
export function ramDirectory(runtimeDir: string): string {
  return join(runtimeDir, 'ram');
}

/** How long to wait for the lock, and what to do then. */
export interface LockPatience {
  readonly limitMs?: number;
  /** run `body` without the lock if it cannot be had: for changes that must happen and that only this process makes */
  readonly mayGoWithout?: boolean;
}

/**
 * Runs `body` under the lock. `body` must not wait for anything, because other processes wait for the lock.
 * @throws FusetapError BUSY if another process keeps the lock for `limitMs`
 */
export async function withRamLock<Result>(
  runtimeDir: string,
  body: () => Result,
  { limitMs = LIMIT_MS, mayGoWithout = false }: LockPatience = {},
): Promise<Result> {
  const fd = await takeLock(ramDirectory(runtimeDir), limitMs).catch((error: unknown) => {
    if (!mayGoWithout) throw error;
    return null;
  });
  try {
    return body();
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

/** @returns a descriptor: the lock lasts until it is closed */
async function takeLock(path: string, limitMs: number): Promise<number> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    const deadline = performance.now() + limitMs;
    while (!tryFlockExclusive(fd)) {
      if (performance.now() > deadline) {
        throw new FusetapError('BUSY', `the ram images are locked for longer than ${limitMs / 1000} s: ${path}`, {
          hint: `find the process that has the lock with lslocks, or fuser -v ${path}`,
          path,
        });
      }
      await delay(POLL_MS);
    }
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}
