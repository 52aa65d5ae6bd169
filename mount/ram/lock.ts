/**
 * The lock on a runtime directory's ram images: what is read and changed under it is one step among all keepers.
 *
 * It is flock(2) on the directory ram/ itself, so there is no lock file that would have to be left behind or removed.
 * The kernel gives it up with its process.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { tryFlockExclusive } from '../../system/libc.js';

/** holders do no more than read and write a few small files */
const LIMIT_MS = 10_000;
const POLL_MS = 2;

/** Where the links of ram images are. */
export function ramDirectory(runtimeDir: string): string {
  return join(runtimeDir, 'ram');
}

/** How the lock is waited for. */
export interface LockPatience {
  readonly limitMs?: number;
  /** `body` is run without it where it cannot be had: for what must be done, and that nobody else does to the same links */
  readonly mayGoWithout?: boolean;
}

/**
 * Runs `body` under the lock. It must not wait for anything: others are waiting for it.
 * @throws FusetapError BUSY if somebody keeps the lock
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
          hint: `find who holds it with lslocks, or fuser -v ${path}`,
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
