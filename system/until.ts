import { setTimeout as delay } from 'node:timers/promises';

/** How long something is waited for, and how often it is looked at. */
export interface Waiting {
  readonly timeoutMs: number;
  readonly everyMs: number;
}

/**
 * Waits until the check says yes.
 * @returns whether it did in time; it is asked once at least, and once more when the time is over
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
