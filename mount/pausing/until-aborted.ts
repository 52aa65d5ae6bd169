/** Waiting for work that cannot be given up, for as long as somebody wants its result. */

/**
 * Waits for work until the signal is aborted; the work itself goes on.
 * @throws what the work throws, or what the signal was aborted with
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
    // whichever of them comes later is nobody's business
    for (const either of [work, aborted]) either.catch(() => {});
  }
}
