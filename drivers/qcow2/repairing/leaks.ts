/** Lowers refcounts that are larger than the count of references, in place. */

import type { Count } from '../checking/count-references.js';
import { getRefcount, putRefcount } from '../checking/refcount-words.js';
import { countOf } from '../checking/references.js';
import { type BlockPlaces, storedParts } from '../checking/stored-refcounts.js';

/** The image must have been checked: no refcount is too low. @returns how many were lowered */
export async function lowerRefcounts(count: Count, places: BlockPlaces): Promise<number> {
  const { header, references, image } = count;
  const order = header.refcountOrder;
  let lowered = 0;
  for await (const { first, count: length, block, index } of storedParts(count, places)) {
    if (block === null) continue;
    let isChanged = false;
    for (let i = 0; i < length; i++) {
      const value = countOf(references.words.get(first + i));
      if (getRefcount(block.bytes, order, index + i) <= value) continue;
      putRefcount(block.bytes, order, { index: index + i, value });
      isChanged = true;
      lowered += 1;
    }
    const [from, bytes] = [(index * 2 ** order) / 8, (length * 2 ** order) / 8];
    if (isChanged) await image.write(block.bytes.subarray(from, from + bytes), block.place + from);
  }
  return lowered;
}
