/** Waits for work that cannot be cancelled, as long as its result is needed. */

/**
 * Waits for work until the signal is aborted; the work itself goes on.
 * @throws what the work throws, or the reason of the signal
 */
export async function untilAborted<Result>(work: Promise<Result>, signal: AbortSignal): Promise<Result> {
  let stop = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop);
  });
  try {
    signal.throwIfAborted();
    const result = await Promise.race([work, aborted]);
    signal.throwIfAborted();
    return result;
  } finally {
    signal.removeEventListener('abort', stop);
    // ignore a rejection of the promise that loses the race
    for (const either of [work, aborted]) either.catch(() => {});
  }
}
