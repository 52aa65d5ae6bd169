/**
 * Counts what is where on a disk, in a bounded number of cells that stand for ranges of one size. So the picture of a disk
 * of 2 TiB is as small as that of a disk of 1 MiB, and an extent that is smaller than a cell is still seen in it.
 *
 *      extents ──► add ──► cells[0…2047]: bytes of each class, bytes that have changed
 */
import type { MapExtent } from '../../mount/client/ranges/map.js';

const MOST_CELLS = 2048;
const SMALLEST_CELL_BYTES = 512;

/** how many depths of a chain have a class of their own; those below share the last one */
export const DEPTHS = 8;

/** What a byte of a disk can be, in the order in which a cell shows it. The first of each group has depth 0. */
export const CLASSES = [
  ...Array.from({ length: DEPTHS }, (_, depth) => ({ kind: 'data', depth }) as const),
  ...Array.from({ length: DEPTHS }, (_, depth) => ({ kind: 'compressed', depth }) as const),
  { kind: 'allocated', depth: 0 },
  { kind: 'zeros', depth: 0 },
  { kind: 'absent', depth: 0 },
] as const;

const [COMPRESSED, ALLOCATED, ZEROS, ABSENT] = [DEPTHS, 2 * DEPTHS, 2 * DEPTHS + 1, 2 * DEPTHS + 2];

/** What one depth of a chain has. */
export interface DepthSum {
  dataBytes: number;
  /** the files in which its bytes are; bounded */
  readonly files: string[];
}

/** how many files of a depth are told by name */
const MOST_NAMES = 3;

/** A range of the disk. */
interface Range {
  readonly start: number;
  readonly length: number;
}

export class Cells {
  readonly sizeBytes: number;
  /** bytes; the last cell may be cut */
  readonly cellBytes: number;
  readonly count: number;
  /** of each class, the bytes in all cells */
  readonly sums: Float64Array;
  /** by depth; deeper ones than DEPTHS too */
  readonly depths = new Map<number, DepthSum>();
  changedBytes = 0;
  readonly #bytes: Float64Array;
  readonly #changed: Float64Array;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
    let cellBytes = SMALLEST_CELL_BYTES;
    while (sizeBytes / cellBytes > MOST_CELLS) cellBytes *= 2;
    this.cellBytes = cellBytes;
    this.count = Math.max(1, Math.ceil(sizeBytes / cellBytes));
    this.sums = new Float64Array(CLASSES.length);
    this.#bytes = new Float64Array(this.count * CLASSES.length);
    this.#changed = new Float64Array(this.count);
  }

  /** Counts an extent of the map of the disk. What is outside of the disk is ignored: it has grown since. */
  add(extent: MapExtent): void {
    const which = classOf(extent);
    this.#spread(extent, (cell, bytes) => {
      const at = cell * CLASSES.length + which;
      this.#bytes[at] = (this.#bytes[at] ?? 0) + bytes;
      this.sums[which] = (this.sums[which] ?? 0) + bytes;
    });
    if (which < ALLOCATED) this.#addDepth(extent);
  }

  /** Marks a range that has changed. */
  mark(range: Range): void {
    this.#spread(range, (cell, bytes) => {
      this.#changed[cell] = (this.#changed[cell] ?? 0) + bytes;
      this.changedBytes += bytes;
    });
  }

  /** The part of a cell that each class has, from 0 to 1: only those that it has. */
  shares(cell: number): { readonly which: number; readonly share: number }[] {
    const total = this.bytesOf(cell);
    const own = this.#bytes.subarray(cell * CLASSES.length, (cell + 1) * CLASSES.length);
    return [...own].flatMap((bytes, which) => (bytes > 0 ? [{ which, share: bytes / total }] : []));
  }

  /** The part of a cell that has changed, from 0 to 1. */
  changedShare(cell: number): number {
    return Math.min(1, (this.#changed[cell] ?? 0) / this.bytesOf(cell));
  }

  /** The bytes that a cell stands for. */
  bytesOf(cell: number): number {
    return Math.max(1, Math.min(this.cellBytes, this.sizeBytes - cell * this.cellBytes));
  }

  #spread({ start, length }: Range, each: (cell: number, bytes: number) => void): void {
    const end = Math.min(this.sizeBytes, start + length);
    for (let at = start; at < end; ) {
      const cell = Math.floor(at / this.cellBytes);
      const to = Math.min(end, (cell + 1) * this.cellBytes);
      each(cell, to - at);
      at = to;
    }
  }

  #addDepth({ depth, length, filename }: MapExtent): void {
    const sum = this.depths.get(depth) ?? { dataBytes: 0, files: [] };
    sum.dataBytes += length;
    const isNew = filename !== null && !sum.files.includes(filename);
    if (isNew && sum.files.length <= MOST_NAMES) sum.files.push(filename);
    this.depths.set(depth, sum);
  }
}

function classOf({ present, zero, data, compressed, depth }: MapExtent): number {
  if (!present) return ABSENT;
  if (zero) return data ? ALLOCATED : ZEROS;
  return Math.min(depth, DEPTHS - 1) + (compressed ? COMPRESSED : 0);
}
