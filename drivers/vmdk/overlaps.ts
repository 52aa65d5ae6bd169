/** Nothing in an extent that is written may overlap: a write would destroy the other one. */
import type { Disk } from '../disk.js';
import { broken } from '../formats/faults.js';
import { SECTOR_BYTES } from './descriptor.js';
import type { Region } from './sparse-header.js';

interface Extent {
  readonly image: Disk;
  readonly grainBytes: number;
}

/**
 * @param regions headers and tables, in any order
 * @param grains the sectors at which grains begin; they are sorted here. The last grain of the image may be cut
 * @returns where the last one ends
 * @throws FusetapError FAILED if two overlap, or a region is not inside the image
 */
export function endOfAll(regions: readonly Region[], grains: Uint32Array, { image, grainBytes }: Extent): number {
  let end = 0;
  const follow = (offset: number, length: number): void => {
    if (offset < end) throw broken('VMDK', `two of its tables or grains overlap at byte ${offset}`);
    end = offset + length;
  };
  let next = 0;
  const followGrains = (limit: number): void => {
    for (; next < grains.length; next++) {
      const offset = (grains[next] as number) * SECTOR_BYTES;
      if (offset >= limit) return;
      follow(offset, grainBytes);
    }
  };
  grains.sort();
  for (const { offset, length } of [...regions].sort((a, b) => a.offset - b.offset)) {
    followGrains(offset);
    follow(offset, length);
    if (end > image.size) throw broken('VMDK', `a table at byte ${offset} is not inside its ${image.size} bytes`);
  }
  followGrains(Number.POSITIVE_INFINITY);
  return end;
}
