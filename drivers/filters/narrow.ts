/** A range of a disk as a disk: the base of offset, sizelimit and partitions. */
import type { MapView, RawDisk, Segment } from '../driver.js';
import { partOfPlaces } from '../map/places.js';
import { areWhole, cutSegments } from '../segments/segments.js';
import { wrapDisk } from './wrap-disk.js';

/**
 * The bytes `start` to `start + size` of a disk. Segments stay segments and a map stays a map, so threads still serve it.
 * @param start bytes; the range must be inside the disk
 */
export function narrow(next: RawDisk, start: number, size: number): RawDisk {
  return wrapDisk(next, {
    size,
    growth: undefined,
    identity: undefined,
    places: next.places && partOfPlaces(next.places, start),
    segments: partOfSegments(next, start, size),
    map: partOfMap(next, start, size),
    read: (buffer, offset) => next.read(buffer, start + offset),
    write: next.write && (async (buffer, offset, options) => next.write?.(buffer, start + offset, options)),
    zero: next.zero && (async (offset, length, options) => next.zero?.(start + offset, length, options)),
    extents:
      next.extents &&
      (async (offset, length) => {
        const extents = (await next.extents?.(start + offset, length)) ?? [];
        return extents.map((extent) => ({ ...extent, offset: extent.offset - start }));
      }),
    changes:
      next.changes &&
      (async (offset, length) => {
        const changes = (await next.changes?.(start + offset, length)) ?? [];
        return changes.map((change) => ({ ...change, offset: change.offset - start }));
      }),
  });
}

/** Undefined if a part of the range has been added by growth: segments do not have it. */
function partOfSegments({ segments = [] }: RawDisk, start: number, size: number): readonly Segment[] | undefined {
  const part = cutSegments(segments, start, size);
  return areWhole(part, size) ? part : undefined;
}

/** As partOfSegments. */
function partOfMap({ map: view }: RawDisk, start: number, size: number): MapView | undefined {
  if (view === undefined || view.start + start + size > view.map.sizeBytes) return undefined;
  return { ...view, start: view.start + start };
}
