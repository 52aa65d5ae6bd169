/** Finds pages of zeros in copied data. A copy leaves them out, so that they take no space. */
import { PAGE_BYTES } from '../../system/page.js';

/** a range of bytes: [from, to) */
export type Run = readonly [from: number, to: number];

const ZERO_PAGE = Buffer.alloc(PAGE_BYTES);

/** The ranges of a chunk whose pages are not all zeros. Pages are counted from the start of the chunk. */
export function* nonZeroPages(chunk: Buffer): Generator<Run> {
  let start = -1;
  for (let at = 0; at < chunk.byteLength; at += PAGE_BYTES) {
    const end = Math.min(at + PAGE_BYTES, chunk.byteLength);
    const isZero = chunk.compare(ZERO_PAGE, 0, end - at, at, end) === 0;
    if (!isZero && start < 0) start = at;
    if (isZero && start >= 0) {
      yield [start, at];
      start = -1;
    }
  }
  if (start >= 0) yield [start, chunk.byteLength];
}
