/** Tells when the reader of stdout has left, for a command that writes nothing more and would never get EPIPE. */
import { isReaderGone } from '../../../system/libc.js';

const LOOK_MS = 250;
const STDOUT = 1;

/** Calls `left` once, when the reader of stdout has closed it. @returns a function that ends the watch */
export function watchReader(left: () => void): () => void {
  const timer = setInterval(() => {
    if (!isReaderGone(STDOUT)) return;
    clearInterval(timer);
    left();
  }, LOOK_MS);
  return () => clearInterval(timer);
}
