/** The lock on the ram images of a runtime directory: reads and changes under it are atomic among all keepers. */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { lockDirectory } from '../runtime/lock-directory.js';

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
  { limitMs, mayGoWithout = false }: LockPatience = {},
): Promise<Result> {
  const fd = await lockDirectory(ramDirectory(runtimeDir), 'the ram images', limitMs).catch((error: unknown) => {
    if (!mayGoWithout) throw error;
    return null;
  });
  try {
    return body();
  } finally {
    if (fd !== null) closeSync(fd);
  }
}
