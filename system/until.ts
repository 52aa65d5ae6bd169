import { setTimeout as delay } from 'node:timers/promises';

/** How long to wait, and how often to check. */
export interface Waiting {
  readonly timeoutMs: number;
  readonly everyMs: number;
}

/**
 * Waits until `check` returns true.
 * @returns false if it did not in time. It is called at least once, and once more when the time is over
 */
export async function until(
  check: () => boolean | Promise<boolean>,
  { timeoutMs, everyMs }: Waiting,
): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const isLast = performance.now() >= deadline;
    if (await check()) return true;
    if (isLast) return false;
    await delay(everyMs);
  }
}
