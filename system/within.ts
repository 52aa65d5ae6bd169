/**
 * Waits for work for at most `limitMs`. After that the work goes on, but its outcome is ignored.
 * @param late the result if the time is up first
 * @throws what the work throws within the limit
 */
export async function within<Result, Late>(work: Promise<Result>, limitMs: number, late: Late): Promise<Result | Late> {
  let timer: NodeJS.Timeout | undefined;
  const over = new Promise<Late>((resolve) => {
    timer = setTimeout(resolve, limitMs, late);
  });
  return await Promise.race([work, over]).finally(() => clearTimeout(timer));
}
