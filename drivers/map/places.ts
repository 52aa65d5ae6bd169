/**
 * Where the bytes of a disk lie. Each disk can tell: by its `places`, by its segments and their holes, or only what is a
 * hole. So a map of a driver above can name the files of a whole chain, and `fusetap map` can describe any disk.
 */
import type { Extent, LocateOptions, MapFile, Place, Places, RawDisk, Segment } from '../driver.js';
import { lastAtOrBefore } from '../segments/joined-disk.js';
import { firstExtents } from './extents.js';

type Describing = Pick<RawDisk, 'places' | 'segments' | 'extents'>;

const NOWHERE = { file: null, place: 0, depth: 0 } as const;

/** The places of a disk. Those of segments are their offsets in the disk: the `delta` of a file sees to that. */
export function placesOf(disk: Describing): Places {
  const { places, segments = [] } = disk;
  if (places !== undefined && segments.length === 0) return places;
  return {
    files: segments.map(({ fd, kind, durable, start, offset }): MapFile => {
      return { fd, kind, durable, readOnly: true, delta: start - offset };
    }),
    async locate(offset, length, { holes = false } = {}) {
      const parts = holes ? await firstExtents(disk, offset, length) : [{ offset, length, hole: false }];
      return parts.flatMap((part) => inSegments(part, segments));
    },
  };
}

function inSegments({ offset, length, hole }: Extent, segments: readonly Segment[]): Place[] {
  const end = offset + length;
  const places: Place[] = [];
  let at = offset;
  for (let file = lastAtOrBefore(segments, offset); file < segments.length && at < end; file++) {
    const { offset: start, size } = segments[file] as Segment;
    const to = Math.min(end, start + size);
    if (to <= at) break;
    places.push({ offset: at, length: to - at, state: hole ? 'zeros' : 'data', file, place: at, depth: 0 });
    at = to;
  }
  // there are none, or the disk has grown
  if (at < end) places.push({ ...NOWHERE, offset: at, length: end - at, state: hole ? 'zeros' : 'unknown' });
  return places;
}

/** What a disk tells of itself if it has places. */
export function placedBy(places: Places): Required<Pick<RawDisk, 'places' | 'extents'>> {
  return {
    places,
    async extents(offset, length) {
      const found = await places.locate(offset, length, { holes: true });
      return found.map(({ offset: at, length: bytes, state }) => ({
        offset: at,
        length: bytes,
        hole: state === 'zeros',
      }));
    },
  };
}

/** The place of a disk below, as a place of the disk above it, which has `files` of its own. */
export function fromBelow(place: Place, files: number): Place {
  return { ...place, file: place.file === null ? null : place.file + files, depth: place.depth + 1 };
}

/** Zeros that no disk has. */
export function absent(offset: number, length: number): Place {
  return { ...NOWHERE, offset, length, state: 'zeros', detail: 'absent' };
}

/** Bytes that only `read` finds. */
export function unknown(offset: number, length: number): Place {
  return { ...NOWHERE, offset, length, state: 'unknown' };
}

/** The places of a part of a disk that begins at its byte `start`. */
export function partOfPlaces(places: Places, start: number): Places {
  return {
    files: places.files,
    async locate(offset, length, options) {
      const found = await places.locate(start + offset, length, options);
      return found.map((place) => ({ ...place, offset: place.offset - start }));
    },
  };
}

/** A disk among those that lie one after the other. */
export interface PlacedPart {
  readonly offset: number;
  readonly size: number;
  readonly places: Places;
}

/** The places of disks that lie one after the other. */
export function joinPlaces(parts: readonly PlacedPart[]): Places {
  const firstFiles: number[] = [];
  const files: MapFile[] = [];
  for (const { places } of parts) {
    firstFiles.push(files.length);
    files.push(...places.files);
  }
  return {
    files,
    async locate(offset, length, options?: LocateOptions) {
      const index = lastAtOrBefore(parts, offset);
      const { offset: start, size, places } = parts[index] as PlacedPart;
      const found = await places.locate(offset - start, Math.min(length, start + size - offset), options);
      return found.map((place) => ({
        ...place,
        offset: place.offset + start,
        file: place.file === null ? null : place.file + (firstFiles[index] as number),
      }));
    },
  };
}
