/**
 * Disks one after the other, as one disk. A request that lies in one of them is passed on; one that crosses an end is
 * served in parts.
 */
import { constants } from 'node:os';
import type { Extent, RawDisk, WriteOptions, ZeroOptions } from '../driver.js';
import { FusetapError } from '../errors.js';
import { cannotZero } from '../filters/cannot-zero.js';

/** A disk among those that are joined. It may lack the calls that write: then that part is read-only. */
export interface JoinedPart {
  readonly disk: RawDisk;
  /** parts with the same key are flushed by one call */
  readonly flushKey: unknown;
}

/** A part of a request: in one disk, at `at` of that disk, and at `skip` of the request. */
interface Piece {
  readonly disk: RawDisk;
  readonly at: number;
  readonly skip: number;
  readonly length: number;
}

/** The disk of all parts, in order. The parts are not closed: `close` frees what the caller allocated. */
export function joinedDisk(parts: readonly JoinedPart[], close: () => Promise<void>): RawDisk {
  return new Joined(parts, close).disk();
}

class Joined {
  readonly #parts: readonly (JoinedPart & { readonly offset: number })[];
  readonly #size: number;
  readonly #close: () => Promise<void>;
  /** the last change of a range that crosses an end */
  #crossing: Promise<void> = Promise.resolve();

  constructor(parts: readonly JoinedPart[], close: () => Promise<void>) {
    let offset = 0;
    this.#parts = parts.map((part) => {
      const placed = { ...part, offset };
      offset += part.disk.size;
      return placed;
    });
    this.#size = offset;
    this.#close = close;
  }

  disk(): RawDisk {
    const reading = {
      size: this.#size,
      read: (buffer: Uint8Array, offset: number) => this.#read(buffer, offset),
      extents: (offset: number, length: number) => this.#extents(offset, length),
      close: this.#close,
    };
    if (this.#parts.every(({ disk }) => disk.write === undefined)) return reading;
    return {
      ...reading,
      write: (buffer, offset, options) => this.#write(buffer, offset, options),
      flush: () => this.#flush(),
      zero: (offset, length, options) => this.#zero(offset, length, options),
    };
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const pieces = this.#pieces(offset, buffer.byteLength);
    await Promise.all(pieces.map(({ disk, at, skip, length }) => disk.read(buffer.subarray(skip, skip + length), at)));
  }

  async #write(buffer: Uint8Array, offset: number, options: WriteOptions): Promise<void> {
    await this.#change(offset, buffer.byteLength, async ({ disk, at, skip, length }) => {
      if (disk.write === undefined) throw isReadOnly('write', offset + skip);
      await disk.write(buffer.subarray(skip, skip + length), at, options);
    });
  }

  async #zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    await this.#change(offset, length, async ({ disk, at, skip, length: bytes }) => {
      if (disk.write === undefined) throw isReadOnly('zero', offset + skip);
      if (disk.zero === undefined) throw cannotZero();
      await disk.zero(at, bytes, options);
    });
  }

  /**
   * Changes a range part by part. A range that crosses an end waits for the others that do: a sector may lie in two
   * parts, and must not be mixed from two writes (coherence rule 6).
   */
  async #change(offset: number, length: number, change: (piece: Piece) => Promise<void>): Promise<void> {
    const pieces = this.#pieces(offset, length);
    const [first] = pieces;
    if (first !== undefined && pieces.length === 1) return await change(first);
    const before = this.#crossing;
    const own = (async () => {
      await before.catch(() => {});
      for (const piece of pieces) await change(piece);
    })();
    this.#crossing = own;
    await own;
  }

  async #flush(): Promise<void> {
    const byKey = new Map(this.#parts.map(({ flushKey, disk }) => [flushKey, disk] as const));
    await Promise.all([...byKey.values()].map((disk) => disk.flush?.()));
  }

  async #extents(offset: number, length: number): Promise<Extent[]> {
    const [piece] = this.#pieces(offset, length);
    if (piece === undefined) return [];
    const { disk, at, length: bytes } = piece;
    const found = (await disk.extents?.(at, bytes)) ?? [{ offset: at, length: bytes, hole: false }];
    // a part may describe more than was asked for; beyond its end lies another part
    return found.map((extent) => {
      const end = Math.min(extent.offset + extent.length, at + bytes);
      return { ...extent, offset: extent.offset - at + offset, length: end - extent.offset };
    });
  }

  #pieces(offset: number, length: number): Piece[] {
    const pieces: Piece[] = [];
    const end = offset + length;
    for (let i = lastAtOrBefore(this.#parts, offset); i < this.#parts.length; i++) {
      const { disk, offset: begin } = this.#parts[i] as { disk: RawDisk; offset: number };
      if (begin >= end) break;
      const from = Math.max(offset, begin);
      const to = Math.min(end, begin + disk.size);
      pieces.push({ disk, at: from - begin, skip: from - offset, length: to - from });
    }
    return pieces;
  }
}

function isReadOnly(operation: string, offset: number): FusetapError {
  const message = `${operation} at byte ${offset}: this part of the disk is read-only`;
  return new FusetapError('DENIED', message, { errno: constants.errno.EROFS, operation, offset });
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
