/**
 * Disks that are runs of open files, one after the other.
 */
import type { RawDisk, Segment } from '../driver.js';
import { joinedDisk } from './joined-disk.js';
import { windowOf } from './one-segment.js';
import { windowDisk } from './window.js';

/** Whether segments are in order, without gaps, and have `size` bytes in all. */
export function areWhole(segments: readonly Segment[], size: number): boolean {
  let end = 0;
  for (const segment of segments) {
    if (segment.offset !== end || segment.size <= 0) return false;
    end += segment.size;
  }
  return end === size && segments.length > 0;
}

/** The part `start` to `start + size` of segments, as segments. */
export function cutSegments(segments: readonly Segment[], start: number, size: number): Segment[] {
  return segments.flatMap((segment) => {
    const from = Math.max(start, segment.offset);
    const to = Math.min(start + size, segment.offset + segment.size);
    if (to <= from) return [];
    return [{ ...segment, offset: from - start, start: segment.start + from - segment.offset, size: to - from }];
  });
}

/**
 * The disk of segments. It does not own their descriptors: `close` frees what the caller allocated.
 *
 * If all segments are read-only, it has no calls that write. @throws RangeError if there are gaps or overlaps
 */
export function segmentsDisk(segments: readonly Segment[], close: () => Promise<void>): RawDisk {
  const size = segments.reduce((sum, segment) => sum + segment.size, 0);
  if (!areWhole(segments, size)) throw new RangeError('the segments of a disk have gaps or overlaps');
  const only = windowOf({ segments });
  if (only !== undefined) return windowDisk(only, close);
  const joined = joinedDisk(
    segments.map((segment) => ({ disk: windowDisk(segment, async () => {}), flushKey: segment.fd })),
    close,
  );
  return { ...joined, segments };
}
