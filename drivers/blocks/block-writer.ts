/**
 * Writes a disk of blocks.
 *
 *      in place      the image has the sectors ──► data
 *      no block      space at the end, zeros ──► data ──► the image has the block
 *      over a base   the rest of the first and last unit, from below ──► data ──► barrier ──► the image has the sectors
 *
 * A write is acknowledged when the image has the block or the sectors. If the server is killed before, the old bytes are
 * there. If the power fails, a block may be durable without its data: over nothing the bytes are zeros then, as they were;
 * over a base they would be zeros that never were there, hence the barrier.
 */
import type { Disk } from '../disk.js';
import type { ZeroOptions } from '../driver.js';
import type { Barrier } from '../lookup/barrier.js';
import type { LookupMap } from '../lookup/lookup-map.js';
import type { Part } from '../lookup/part.js';
import type { Reader } from '../lookup/reader.js';
import type { UnitLock } from '../lookup/unit-lock.js';
import { writeAll } from '../lookup/write-all.js';
import type { Block, GrowingTable, Sectors } from './block-table.js';
import { SECTOR_BYTES, type SectorBits } from './sector-bits.js';
import { isZerosBelow } from './zeros-below.js';

const ZEROS = Buffer.alloc(1 << 20);

export interface BlockWriterParts {
  /** of the disk */
  readonly size: number;
  /** what is copied with a write is a multiple of this; it divides the block */
  readonly unitBytes: number;
  readonly image: Disk;
  readonly table: GrowingTable;
  readonly reader: Reader<Part>;
  readonly lock: UnitLock;
  readonly barrier: Barrier;
  readonly map: LookupMap | null;
}

/** A part of a write, in one block. */
interface Piece {
  readonly block: number;
  /** in the disk */
  readonly at: number;
  readonly bytes: Uint8Array;
}

export class BlockWriter {
  readonly #parts: BlockWriterParts;

  constructor(parts: BlockWriterParts) {
    this.#parts = parts;
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    const { lock } = this.#parts;
    await this.#begin();
    await lock.run(at, bytes.byteLength, () => this.#writeLocked(bytes, at));
  }

  /** Makes a range zeros. Blocks keep their places, and none is added if the backing disk reads as zeros there. */
  async zero(offset: number, length: number, { punch }: ZeroOptions): Promise<void> {
    const { lock, table } = this.#parts;
    const { blockBytes } = table;
    const end = offset + length;
    await this.#begin();
    for (let at = offset; at < end; ) {
      const to = Math.min(end, (Math.floor(at / blockBytes) + 1) * blockBytes);
      const from = at;
      await lock.run(from, to - from, () => this.#zeroLocked(from, to, punch));
      at = to;
    }
  }

  async #begin(): Promise<void> {
    const { table, map } = this.#parts;
    if (table.mayWriteInPlace ?? true) return;
    await table.begin?.();
    // it says that threads must not write
    map?.forgetAll();
  }

  async #writeLocked(bytes: Uint8Array, at: number): Promise<void> {
    const { blockBytes } = this.#parts.table;
    for (let done = 0; done < bytes.byteLength; ) {
      const from = at + done;
      const block = Math.floor(from / blockBytes);
      const length = Math.min(bytes.byteLength - done, (block + 1) * blockBytes - from);
      await this.#writePiece({ block, at: from, bytes: bytes.subarray(done, done + length) });
      done += length;
    }
  }

  async #writePiece(piece: Piece): Promise<void> {
    const { table, image, map } = this.#parts;
    const { block, at, bytes } = piece;
    const known = await table.get(block);
    if (known === null || known === 'zeros') return await this.#allocate(piece, known);
    const within = at - block * table.blockBytes;
    if (!hasAll(known, within, bytes.byteLength)) return await this.#fill(piece, known);
    await writeAll(image, bytes, known.place + within);
    map?.moved(at, bytes.byteLength);
  }

  /** Writes to a block that has no place. */
  async #allocate(piece: Piece, known: 'zeros' | null): Promise<void> {
    const { table, image, reader, barrier, map, size } = this.#parts;
    const { block } = piece;
    const start = block * table.blockBytes;
    const place = await table.allocate();
    const isEmpty = known === 'zeros' || reader.isEmpty(start);
    let written = piece;
    try {
      // sectors also over zeros: what is behind the end of a short base is looked up by unit, too
      if (table.addsWhole ? !isEmpty : reader.hasBacking) written = await this.#merge(piece, null);
      await writeAll(image, written.bytes, place + written.at - start);
      if (!isEmpty) await barrier.pass();
    } catch (error) {
      table.giveBack(place);
      throw error;
    }
    if (reader.hasBacking && !table.addsWhole) {
      await table.add(block, place, this.#sectorsOf(written));
      map?.moved(written.at, written.bytes.byteLength);
    } else {
      // the space is zeros, as the rest of the block was, or all of the block was written
      await table.add(block, place, { first: 0, count: table.blockBytes / SECTOR_BYTES });
      map?.moved(start, Math.min(table.blockBytes, size - start));
    }
  }

  /** Writes to a block of which the image has only some of the sectors. */
  async #fill(piece: Piece, known: Block): Promise<void> {
    const { table, image, barrier, map } = this.#parts;
    const merged = await this.#merge(piece, known.present);
    await writeAll(image, merged.bytes, known.place + merged.at - piece.block * table.blockBytes);
    // the place may have other bytes, and the base has
    await barrier.pass();
    await table.mark(piece.block, this.#sectorsOf(merged));
    map?.moved(merged.at, merged.bytes.byteLength);
  }

  /**
   * The sectors of a piece in its block. If it begins or ends within a sector, the image has that one already. What is behind
   * the end of the disk does not count: it may be served another time, with another size.
   */
  #sectorsOf({ block, at, bytes }: Piece): Sectors {
    return sectorsIn(at - block * this.#parts.table.blockBytes, bytes.byteLength);
  }

  /**
   * Adds to a piece the rest of its first and last unit. The rest of a unit that is in place stays as it is: threads may be
   * writing to it.
   */
  async #merge({ block, at, bytes }: Piece, present: SectorBits | null): Promise<Piece> {
    const { unitBytes, reader, size, table } = this.#parts;
    const start = block * table.blockBytes;
    const end = at + bytes.byteLength;
    const isInPlace = (unit: number): boolean => {
      if (present === null) return false;
      const sectors = Math.ceil(Math.min(unitBytes, size - unit) / SECTOR_BYTES);
      return present.has((unit - start) / SECTOR_BYTES, sectors);
    };
    const first = at - (at % unitBytes);
    const last = end - 1 - ((end - 1) % unitBytes);
    const from = isInPlace(first) ? at : first;
    const to = isInPlace(last) ? end : Math.min(size, last + unitBytes);
    if (from === at && to === end) return { block, at, bytes };
    const merged = Buffer.alloc(to - from);
    if (from < at) await reader.read(merged.subarray(0, at - from), from);
    if (end < to) await reader.read(merged.subarray(end - from), end);
    merged.set(bytes, at - from);
    return { block, at: from, bytes: merged };
  }

  /** A range of one block. */
  async #zeroLocked(from: number, to: number, punch: boolean): Promise<void> {
    const { table, image, reader, size } = this.#parts;
    const block = Math.floor(from / table.blockBytes);
    const start = block * table.blockBytes;
    const known = await table.get(block);
    const isWhole = from === start && to >= Math.min(size, start + table.blockBytes);
    if (known === null && isWhole) return await this.#zeroMissing(block, from, to);
    for (const part of await reader.finder.find(from, to - from)) {
      const { kind, offset, length, place } = part;
      if (kind === 'data') await image.zero(place, length, { punch });
      else if (kind === 'none' && !(await isZerosBelow(reader, offset, length))) await this.#writeZeros(offset, length);
    }
  }

  /** All of a block that the image does not have. */
  async #zeroMissing(block: number, from: number, to: number): Promise<void> {
    const { table, reader, map } = this.#parts;
    // to look at what is below costs more than an entry
    const isZeros = table.addZeros === undefined ? await isZerosBelow(reader, from, to - from) : reader.isEmpty(from);
    if (isZeros) return;
    if (table.addZeros !== undefined) await table.addZeros(block);
    else await table.add(block, await table.allocate(), sectorsIn(0, to - from));
    map?.moved(from, to - from);
  }

  async #writeZeros(offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += ZEROS.length) {
      await this.#writeLocked(ZEROS.subarray(0, Math.min(ZEROS.length, length - done)), offset + done);
    }
  }
}

/** Whether the image has all sectors of a range of a block. */
function hasAll({ present }: Block, within: number, length: number): boolean {
  if (present === null) return true;
  const { first, count } = sectorsIn(within, length);
  return present.has(first, count);
}

/** The sectors that a range of a block touches. */
function sectorsIn(within: number, length: number): Sectors {
  const first = Math.floor(within / SECTOR_BYTES);
  return { first, count: Math.ceil((within + length) / SECTOR_BYTES) - first };
}
