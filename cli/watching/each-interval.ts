/** Intervals that do not drift. */
import { setTimeout as delay } from 'node:timers/promises';

/**
 * Yields at each interval, until the signal is aborted. An interval that is missed because the work took too long is left
 * out.
 */
export async function* eachInterval(intervalMs: number, signal?: AbortSignal): AsyncGenerator<void> {
  const begun = performance.now();
  for (;;) {
    const passed = performance.now() - begun;
    const next = (Math.floor(passed / intervalMs) + 1) * intervalMs;
    await delay(next - passed, undefined, { signal }).catch(() => {});
    if (signal?.aborted) return;
    yield;
  }
}
