/**
 * A progress bar on a terminal for work that takes longer than a second. We write our own: a package would make each
 * start of the command line slower, and has cursors and colours that we do not need.
 *
 *      copying [##############------------------]  45%  3.6G of 8G
 */
import type { Progress } from '../mount/client/index.js';
import { humanSize } from './output.js';

const PATIENCE_MS = 1_000;
const WIDTH = 32;

interface BarOptions {
  quiet?: boolean;
}

/** Runs long work; shows its progress on stderr if that is a terminal. */
export async function withProgress<Result>(
  word: string,
  { quiet }: BarOptions,
  work: (progress: Progress | undefined) => Promise<Result>,
): Promise<Result> {
  if (quiet || !process.stderr.isTTY) return work(undefined);
  const begun = performance.now();
  let shown = false;
  try {
    return await work((doneBytes, totalBytes) => {
      if (performance.now() - begun < PATIENCE_MS) return;
      shown = true;
      process.stderr.write(`\r${drawBar(word, doneBytes, totalBytes)}\x1b[K`);
    });
  } finally {
    // remove the bar: the next output takes its place
    if (shown) process.stderr.write('\r\x1b[K');
  }
}

/** The bar as text. */
export function drawBar(word: string, doneBytes: number, totalBytes: number): string {
  const part = totalBytes === 0 ? 1 : Math.min(1, doneBytes / totalBytes);
  const filled = Math.floor(part * WIDTH);
  const bar = '#'.repeat(filled) + '-'.repeat(WIDTH - filled);
  const percent = `${Math.floor(part * 100)}%`.padStart(4);
  return `${word} [${bar}] ${percent}  ${humanSize(doneBytes)} of ${humanSize(totalBytes)}`;
}
