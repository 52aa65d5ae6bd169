/**
 * A disk of parts of other disks, one after the other: what fixed and flat formats are. If all parts lie in files,
 * threads serve it.
 */
import type { Disk } from '../disk.js';
import type { Places, RawDisk, Segment } from '../driver.js';
import { narrow } from '../filters/narrow.js';
import { withoutWrites } from '../filters/read-only.js';
import { joinPlaces, placedBy, placesOf } from '../map/places.js';
import { joinedDisk } from './joined-disk.js';
import { cutSegments } from './segments.js';

/** `size` bytes of a disk, from its byte `start` on, which must be inside it. `disk` null: zeros, read-only. */
export interface DiskPart {
  readonly disk: Disk | null;
  readonly start: number;
  readonly size: number;
  /** never written, also if the disk can be; default: false */
  readonly readOnly?: boolean;
}

/** Joins parts of disks. The disks stay open when the result is closed. @throws RangeError for a part that is outside */
export function joinDisks(parts: readonly DiskPart[]): RawDisk {
  for (const { disk, start, size } of parts) {
    if (start < 0 || size <= 0 || (disk !== null && start + size > disk.size)) {
      throw new RangeError(`a part of ${size} bytes at byte ${start} is not inside its disk`);
    }
  }
  // parts that are never written share a key: their disks have no flush
  const joined = parts.map(({ disk, start, size, readOnly = false }) => {
    if (disk === null) return { disk: zeros(size), flushKey: null };
    const part = narrow(asRaw(disk), start, size);
    return readOnly ? { disk: withoutWrites(part), flushKey: null } : { disk: part, flushKey: disk };
  });
  const [only, second] = joined;
  if (only !== undefined && second === undefined) return only.disk;
  const disks = joined.map(({ disk }) => disk);
  const segments = segmentsOf(disks);
  return {
    ...joinedDisk(joined, async () => {}),
    ...(segments === null ? placedBy(placesOfAll(disks)) : { segments }),
  };
}

function placesOfAll(disks: readonly RawDisk[]): Places {
  let end = 0;
  const parts = disks.map((disk) => {
    const offset = end;
    end += disk.size;
    return { offset, size: disk.size, places: placesOf(disk) };
  });
  return joinPlaces(parts);
}

function segmentsOf(disks: readonly RawDisk[]): Segment[] | null {
  const all: Segment[] = [];
  let offset = 0;
  for (const { size, segments } of disks) {
    if (segments === undefined) return null;
    const at = offset;
    all.push(...cutSegments(segments, 0, size).map((segment) => ({ ...segment, offset: at + segment.offset })));
    offset += size;
  }
  return all;
}

/** A disk that fusetap has opened, as one that a driver returns: its `close` does nothing. */
export function asRaw(disk: Disk): RawDisk {
  const { size, segments, map, places } = disk;
  const reading = {
    size,
    places,
    ...(segments && { segments }),
    ...(map && { map }),
    read: async (buffer: Uint8Array, offset: number) => void (await disk.read(buffer, offset)),
    extents: (offset: number, length: number) => disk.extents(offset, length),
    close: async () => {},
  };
  if (disk.readOnly) return reading;
  return {
    ...reading,
    write: async (buffer, offset, options) => void (await disk.write(buffer, offset, options)),
    flush: () => disk.flush(),
    zero: (offset, length, options) => disk.zero(offset, length, options),
  };
}

function zeros(size: number): RawDisk {
  return {
    size,
    read: async (buffer) => void buffer.fill(0),
    extents: async () => [{ offset: 0, length: size, hole: true }],
    close: async () => {},
  };
}
