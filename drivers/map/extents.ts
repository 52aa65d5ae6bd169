/** What a driver tells of data and holes, made tidy: its answer may have gaps, overlaps or too much. */
import { constants } from 'node:os';
import type { Extent, RawDisk } from '../driver.js';
import { errnoOf } from '../errors.js';

const { errno: E } = constants;

type Describing = Pick<RawDisk, 'extents'>;

/**
 * The extents of a range inside a disk: in order, without gaps, data and hole alternating. A gap in the driver's answer is
 * data.
 */
export async function extentsOf(disk: Describing, offset: number, length: number): Promise<Extent[]> {
  const end = offset + length;
  const runs: Extent[] = [];
  for (let at = offset; at < end; ) {
    for (const extent of await firstExtents(disk, at, end - at)) {
      append(runs, extent);
      at = extent.offset + extent.length;
    }
  }
  return runs;
}

/** As extentsOf, for the part of the range that one call of the driver describes; at least its first byte. */
export async function firstExtents(disk: Describing, offset: number, length: number): Promise<Extent[]> {
  const end = offset + length;
  const runs: Extent[] = [];
  let at = offset;
  const goOn = (to: number, hole: boolean): void => {
    if (to <= at) return;
    append(runs, { offset: at, length: to - at, hole });
    at = to;
  };
  for (const extent of await told(disk, offset, length)) {
    goOn(Math.min(extent.offset, end), false);
    goOn(Math.min(extent.offset + extent.length, end), extent.hole);
  }
  if (at === offset) goOn(end, false);
  return runs;
}

function append(runs: Extent[], extent: Extent): void {
  const last = runs.at(-1);
  if (last?.hole === extent.hole) runs[runs.length - 1] = { ...last, length: last.length + extent.length };
  else runs.push(extent);
}

async function told(disk: Describing, offset: number, length: number): Promise<Extent[]> {
  try {
    return (await disk.extents?.(offset, length)) ?? [];
  } catch (error) {
    if (isUnsupported(error)) return [];
    throw error;
  }
}

/** Whether an error says that a disk cannot do something. */
export function isUnsupported(error: unknown): boolean {
  const errno = errnoOf(error);
  return errno === E.EOPNOTSUPP || errno === E.ENOSYS;
}
