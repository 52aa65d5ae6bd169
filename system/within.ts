/**
 * Waits for work for so long; the work itself goes on, and nobody looks at how it ends.
 * @param late the result where the time is up first
 * @throws what the work throws in time
 */
export async function within<Result, Late>(work: Promise<Result>, limitMs: number, late: Late): Promise<Result | Late> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<Late>((resolve) => {
    timer = setTimeout(resolve, limitMs, late);
  });
  return await Promise.race([work, over]).finally(() => clearTimeout(timer));
}
