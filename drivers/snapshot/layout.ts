/**
 * What is where in the memory of a snapshot:
 *
 *      data             the disk, each byte at its own offset; the last granule is whole
 *      granule states   a byte for each granule: BASE, PRIVATE or ZEROED
 *      slice states     a byte for each slice of 512 granules: what BASE means there, BASE or ZEROED
 *
 * All of it is holes at first. Slice states keep the discard of a whole disk small: without them, 1 TiB would take 256
 * MiB of granule states, with them it takes 512 KiB.
 */
import { FusetapError } from '../errors.js';
import { SLICE_GRANULES } from '../map/table.js';

export const GRANULE_BYTES = 4096;
/** of the memory; the areas begin at pages */
export const PAGE = 4096;

/** larger disks would need more than 256 MiB for the directory of the map */
export const LARGEST_BYTES = 2 ** 47;

export interface Layout {
  readonly sizeBytes: number;
  readonly granules: number;
  readonly slices: number;
  /** where the granule states begin */
  readonly granulesAt: number;
  /** where the slice states begin */
  readonly slicesAt: number;
  /** of the memory */
  readonly totalBytes: number;
}

/** @throws FusetapError UNSUPPORTED if the disk is too large */
export function layoutOf(sizeBytes: number): Layout {
  if (sizeBytes > LARGEST_BYTES) {
    throw new FusetapError('UNSUPPORTED', `snapshot: the disk has ${sizeBytes} bytes`, {
      hint: `a snapshot has at most ${LARGEST_BYTES} bytes; use --sizelimit on an image that is smaller`,
    });
  }
  const granules = Math.ceil(sizeBytes / GRANULE_BYTES);
  const slices = Math.ceil(granules / SLICE_GRANULES);
  const granulesAt = granules * GRANULE_BYTES;
  const slicesAt = granulesAt + wholePages(granules);
  return { sizeBytes, granules, slices, granulesAt, slicesAt, totalBytes: slicesAt + wholePages(slices) };
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE) * PAGE;
}
