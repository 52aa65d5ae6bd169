/**
 * The grain directory of a sparse extent, and the grain tables that were used last. They are only read.
 *
 *      grain ──► directory entry ──► grain table (memory: those used last) ──► entry
 */
import { constants } from 'node:os';
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { SECTOR_BYTES } from './descriptor.js';
import type { SparseHeader } from './sparse-header.js';

const ENTRY_BYTES = 4;
/** the most memory of grain tables */
const MOST_BYTES = 16 << 20;
/** a buffer takes more memory than its bytes, which counts for small tables */
const MOST_TABLES = 8192;

/** A sparse extent. */
export interface SparseParts {
  readonly image: Disk;
  readonly header: SparseHeader;
  /** how many extents share the memory of tables and decoded grains */
  readonly shares: number;
}

export class GrainTables {
  readonly header: SparseHeader;
  readonly image: Disk;
  readonly #directory: Buffer;
  readonly #most: number;
  /** by their index in the directory; the one used last is the last */
  readonly #tables = new Map<number, Buffer>();
  readonly #loading = new Map<number, Promise<Buffer>>();

  private constructor({ image, header, shares }: SparseParts, directory: Buffer) {
    this.image = image;
    this.header = header;
    this.#directory = directory;
    this.#most = Math.max(1, Math.floor(Math.min(MOST_TABLES, MOST_BYTES / this.#tableBytes) / shares));
  }

  /** Reads the directory. */
  static async load(parts: SparseParts): Promise<GrainTables> {
    const { offset, length } = parts.header.directory;
    return new GrainTables(parts, await readUpTo(parts.image, offset, length));
  }

  get #tableBytes(): number {
    return this.header.tableEntries * ENTRY_BYTES;
  }

  /** How much of the extent a table describes. */
  get mappedBytes(): number {
    return this.header.tableEntries * this.header.grainBytes;
  }

  /** The table if it is in memory; null if there is none; undefined if it must be loaded. */
  peek(index: number): Buffer | null | undefined {
    return this.#place(index) === 0 ? null : this.#tables.get(index);
  }

  /** The table; null if there is none. @throws FusetapError FAILED, errno EIO, if it is not inside the image */
  async get(index: number): Promise<Buffer | null> {
    if (this.#place(index) === 0) return null;
    const known = this.#tables.get(index);
    if (known !== undefined) {
      this.#keep(index, known);
      return known;
    }
    const loading = this.#loading.get(index) ?? this.#load(index).finally(() => this.#loading.delete(index));
    this.#loading.set(index, loading);
    return await loading;
  }

  async #load(index: number): Promise<Buffer> {
    const place = this.#place(index);
    const bytes = await readUpTo(this.image, place, this.#tableBytes);
    if (bytes.length < this.#tableBytes) throw unreadable(`the grain table at byte ${place} is not inside it`);
    this.#keep(index, bytes);
    return bytes;
  }

  #keep(index: number, table: Buffer): void {
    this.#tables.delete(index);
    this.#tables.set(index, table);
    if (this.#tables.size <= this.#most) return;
    const [oldest] = this.#tables.keys();
    if (oldest !== undefined) this.#tables.delete(oldest);
  }

  /** Where a table is, in bytes; 0: there is none. */
  #place(index: number): number {
    return this.#directory.readUInt32LE(index * ENTRY_BYTES) * SECTOR_BYTES;
  }
}

/** The entry of a grain in its table: a sector, 0, or 1. */
export function entryIn(table: Buffer, grain: number): number {
  return table.readUInt32LE((grain % (table.length / ENTRY_BYTES)) * ENTRY_BYTES);
}

/** The error of a read that finds the image damaged. */
export function unreadable(what: string, cause?: unknown): FusetapError {
  const { code, message, hint } = broken('VMDK', what);
  return new FusetapError(code, message, { hint, errno: constants.errno.EIO, operation: 'read', cause });
}
