/** The lock on a runtime directory's ram images: what is read and changed under it is one step among all keepers. */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { lockDirectory } from '../runtime/lock-directory.js';

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
 * @throws FusetapError BUSY where somebody keeps the lock
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
