/**
 * A progress bar on a terminal for work that takes longer than a second. We write our own: a package would make each
 * start of the command line slower, and has cursors and colours that we do not need.
 *
 *      copying [##############------------------]  45%  3.6G of 8G
 *
 * The bar never is wider than the terminal: a line that wraps would stay on the screen at each report. The width is
 * looked at for each report, because a terminal may be resized meanwhile.
 */
import type { Progress } from '../mount/client/index.js';
import { humanSize } from './output.js';

const PATIENCE_MS = 1_000;
const WIDEST_BAR = 32;
/** a shorter bar shows less than the percentage */
const SHORTEST_BAR = 8;
/** if the terminal does not tell its width, as a serial line */
const USUAL_COLUMNS = 80;

interface BarOptions {
  quiet?: boolean;
}

/** The terminal on which a bar is drawn. */
export type BarTerminal = Pick<NodeJS.WriteStream, 'isTTY' | 'columns'> & { write(text: string): unknown };

/** Runs long work; shows its progress on stderr if that is a terminal that can delete a line. */
export async function withProgress<Result>(
  word: string,
  { quiet }: BarOptions,
  work: (progress: Progress | undefined) => Promise<Result>,
  terminal: BarTerminal = process.stderr,
): Promise<Result> {
  if (quiet || !terminal.isTTY || process.env.TERM === 'dumb') return work(undefined);
  const begun = performance.now();
  let shown = false;
  try {
    return await work((doneBytes, totalBytes) => {
      if (performance.now() - begun < PATIENCE_MS) return;
      shown = true;
      // a terminal wraps when its last column is filled
      const room = (terminal.columns || USUAL_COLUMNS) - 1;
      terminal.write(`\r${drawBar(word, { doneBytes, totalBytes }, room)}\x1b[K`);
    });
  } finally {
    // remove the bar: the next output takes its place
    if (shown) terminal.write('\r\x1b[K');
  }
}

/** The bar as text of at most `room` characters. Leaves out the sizes, then the bar, then the word. */
export function drawBar(
  word: string,
  { doneBytes, totalBytes }: { doneBytes: number; totalBytes: number },
  room: number,
): string {
  const part = totalBytes === 0 ? 1 : Math.min(1, doneBytes / totalBytes);
  const percent = `${Math.floor(part * 100)}%`;
  const tail = ` ${percent.padStart(4)}`;
  const sizes = `  ${humanSize(doneBytes)} of ${humanSize(totalBytes)}`;
  for (const end of [tail + sizes, tail]) {
    const width = Math.min(WIDEST_BAR, room - `${word} []${end}`.length);
    if (width < SHORTEST_BAR) continue;
    const filled = Math.floor(part * width);
    return `${word} [${'#'.repeat(filled)}${'-'.repeat(width - filled)}]${end}`;
  }
  return [`${word}${tail}`, percent].find((text) => text.length <= room) ?? '';
}
