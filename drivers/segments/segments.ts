/**
 * Disks that are runs of open files, one after the other. A request that lies in one run is served as a request for a
 * window; one that crosses an end is served in parts.
 */
import type { Extent, RawDisk, Segment, WriteOptions, ZeroOptions } from '../driver.js';
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

/** A part of a request: in one segment, at `at` of that segment, and at `skip` of the request. */
interface Part {
  readonly disk: RawDisk;
  readonly at: number;
  readonly skip: number;
  readonly length: number;
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
  return new SegmentsDisk(segments, size, close).disk();
}

class SegmentsDisk {
  readonly #segments: readonly Segment[];
  readonly #disks: readonly RawDisk[];
  readonly #size: number;
  readonly #close: () => Promise<void>;
  /** the last change of a range that crosses an end */
  #crossing: Promise<void> = Promise.resolve();

  constructor(segments: readonly Segment[], size: number, close: () => Promise<void>) {
    this.#segments = segments;
    this.#disks = segments.map((segment) => windowDisk(segment, async () => {}));
    this.#size = size;
    this.#close = close;
  }

  disk(): RawDisk {
    const reading = {
      size: this.#size,
      segments: this.#segments,
      read: (buffer: Uint8Array, offset: number) => this.#read(buffer, offset),
      extents: (offset: number, length: number) => this.#extents(offset, length),
      close: this.#close,
    };
    if (this.#segments.every(({ readOnly }) => readOnly)) return reading;
    return {
      ...reading,
      write: (buffer, offset, options) => this.#write(buffer, offset, options),
      flush: () => this.#flush(),
      zero: (offset, length, options) => this.#zero(offset, length, options),
    };
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const parts = this.#parts(offset, buffer.byteLength);
    await Promise.all(parts.map(({ disk, at, skip, length }) => disk.read(buffer.subarray(skip, skip + length), at)));
  }

  async #write(buffer: Uint8Array, offset: number, options: WriteOptions): Promise<void> {
    await this.#change(offset, buffer.byteLength, async ({ disk, at, skip, length }) => {
      await disk.write?.(buffer.subarray(skip, skip + length), at, options);
    });
  }

  async #zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    await this.#change(offset, length, async (part) => await part.disk.zero?.(part.at, part.length, options));
  }

  /**
   * Changes a range part by part. A range that crosses an end waits for the others that do: a sector may lie in two
   * segments, and must not be mixed from two writes (coherence rule 6).
   */
  async #change(offset: number, length: number, change: (part: Part) => Promise<void>): Promise<void> {
    const parts = this.#parts(offset, length);
    const [first] = parts;
    if (first !== undefined && parts.length === 1) return await change(first);
    const before = this.#crossing;
    const own = (async () => {
      await before.catch(() => {});
      for (const part of parts) await change(part);
    })();
    this.#crossing = own;
    await own;
  }

  /** Flushes each file once. */
  async #flush(): Promise<void> {
    const byFd = new Map(this.#segments.map(({ fd }, i) => [fd, this.#disks[i]] as const));
    await Promise.all([...byFd.values()].map((disk) => disk?.flush?.()));
  }

  async #extents(offset: number, length: number): Promise<Extent[]> {
    const [part] = this.#parts(offset, length);
    if (part === undefined) return [];
    const found = (await part.disk.extents?.(part.at, part.length)) ?? [];
    return found.map((extent) => ({ ...extent, offset: extent.offset - part.at + offset }));
  }

  #parts(offset: number, length: number): Part[] {
    const parts: Part[] = [];
    const end = offset + length;
    for (let i = this.#indexOf(offset); i < this.#segments.length; i++) {
      const segment = this.#segments[i] as Segment;
      if (segment.offset >= end) break;
      const from = Math.max(offset, segment.offset);
      const to = Math.min(end, segment.offset + segment.size);
      const disk = this.#disks[i] as RawDisk;
      parts.push({ disk, at: from - segment.offset, skip: from - offset, length: to - from });
    }
    return parts;
  }

  /** The index of the segment that has the byte. */
  #indexOf(offset: number): number {
    return lastAtOrBefore(this.#segments, offset);
  }
}

/** The index of the last segment that begins at or before `offset`: binary search. */
export function lastAtOrBefore(segments: readonly { readonly offset: number }[], offset: number): number {
  let [low, high] = [0, segments.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((segments[middle] as { offset: number }).offset <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}
