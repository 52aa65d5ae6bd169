/**
 * The block allocation table (BAT) of a VHD, and the bitmaps of its blocks.
 *
 *      block ──► entry of the table: a sector │ none
 *                  └─► [bitmap: which sectors the image has][data]
 *
 * The table is in memory; bitmaps are read when a block is used first. A new block is written in this order: data ──►
 * bitmap ──► entry ──► acknowledged. New blocks begin behind all that is in the image, also what only XenServer has, and their
 * data at a multiple of 4 KiB. The footer at the end moves before the space is used.
 */
import type { Block, GrowingTable, Sectors } from '../blocks/block-table.js';
import { EndSpace } from '../blocks/end-space.js';
import { SECTOR_BYTES, SectorBits } from '../blocks/sector-bits.js';
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { Barrier } from '../lookup/barrier.js';
import { writeAll } from '../lookup/write-all.js';
import { type DynamicHeader, NONE } from './dynamic-header.js';
import { FOOTER_BYTES, FORMAT, type Footer, roundUp } from './footer.js';

const CHUNK_BYTES = 1 << 20;
/** data begins at a multiple of this, as tapdisk does it */
const ALIGN_BYTES = 4096;
/** the most memory of bitmaps of blocks that lack sectors */
const MOST_BITMAP_BYTES = 16 << 20;

export interface VhdParts {
  readonly image: Disk;
  readonly footer: Footer;
  readonly header: DynamicHeader;
}

export class AllocationTable implements GrowingTable {
  readonly blockBytes: number;
  readonly #image: Disk;
  readonly #footer: Footer;
  readonly #header: DynamicHeader;
  readonly #isWritten: boolean;
  readonly #space: EndSpace | null;
  readonly #sectors: number;
  #entries = new Uint32Array(0);
  /** by block: 1 if the image has all its sectors */
  #isFull = new Uint8Array(0);
  /** of blocks that lack sectors; the one used last is the last */
  readonly #bits = new Map<number, SectorBits>();
  readonly #loading = new Map<number, Promise<Block>>();
  /** how often bitmaps were changed */
  #changes = 0;
  /** after `load` for writing: the footer was not at the end, and was written there */
  wasRestored = false;

  /** @param barrier null: the image is only read */
  constructor({ image, footer, header }: VhdParts, barrier: Barrier | null) {
    this.blockBytes = header.blockBytes;
    this.#image = image;
    this.#footer = footer;
    this.#header = header;
    this.#sectors = header.blockBytes / SECTOR_BYTES;
    this.#isWritten = barrier !== null;
    this.#space =
      barrier &&
      new EndSpace({
        ...{ image, barrier, trailerBytes: FOOTER_BYTES },
        strideBytes: roundUp(header.bitmapBytes + header.blockBytes, ALIGN_BYTES),
        announce: async (end, isLonger) => {
          if (isLonger) await writeAll(image, footer.bytes, end);
        },
      });
  }

  async load(): Promise<void> {
    const { tableAt, blocks, bitmapBytes } = this.#header;
    this.#entries = new Uint32Array(blocks);
    this.#isFull = new Uint8Array(blocks);
    this.#bits.clear();
    for (let done = 0; done < 4 * blocks; done += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, 4 * blocks - done);
      const bytes = await readUpTo(this.#image, tableAt + done, length);
      if (bytes.length < length) throw broken(FORMAT, 'its table is cut off');
      for (let at = 0; at < length; at += 4) this.#entries[(done + at) / 4] = bytes.readUInt32BE(at);
    }
    if (!this.#isWritten) return;
    const end = this.#checkAll();
    this.wasRestored = await this.#placeFooter(end);
    this.#space?.start(roundUp(end + bitmapBytes, ALIGN_BYTES) - bitmapBytes);
  }

  /**
   * Writes the footer behind the last block, if it is not at the end of the image: a crash has left it out, or has cut the
   * last block. @returns whether it was not there
   */
  async #placeFooter(end: number): Promise<boolean> {
    const { bytes } = this.#footer;
    const image = this.#image;
    const last = await readUpTo(image, Math.max(0, image.size - FOOTER_BYTES), FOOTER_BYTES);
    const isThere = last.equals(bytes);
    if (isThere && end + FOOTER_BYTES <= image.size) return false;
    const canGrow = image.growth !== undefined;
    const place = canGrow ? Math.max(end, isThere ? 0 : roundUp(image.size, SECTOR_BYTES)) : image.size - FOOTER_BYTES;
    if (place < end) throw broken(FORMAT, 'its last block reaches into its footer');
    await image.growth?.grow(place + FOOTER_BYTES);
    await writeAll(image, bytes, place);
    await image.flush();
    return true;
  }

  /** Blocks that overlap would destroy each other when they are written. @returns behind all that is in the image */
  #checkAll(): number {
    const { reservedEnd, bitmapBytes } = this.#header;
    let count = 0;
    const starts = new Float64Array(this.#entries.length);
    for (const block of this.#entries.keys()) {
      const start = this.#startOf(block);
      if (start !== null) starts[count++] = start;
    }
    let end = 0;
    for (const start of starts.subarray(0, count).sort()) {
      if (start < end) throw broken(FORMAT, `two of its blocks overlap at byte ${start}`);
      end = start + bitmapBytes + this.blockBytes;
    }
    return Math.max(end, reservedEnd);
  }

  /** Where a block begins with its bitmap; null: the image does not have it. @throws FusetapError FAILED */
  #startOf(block: number): number | null {
    const { reservedEnd, bitmapBytes } = this.#header;
    const entry = this.#entries[block] ?? NONE;
    if (entry === NONE) return null;
    const start = entry * SECTOR_BYTES;
    if (start < reservedEnd) this.#refuseReserved(block, start);
    if (start + bitmapBytes <= this.#image.size) return start;
    throw broken(FORMAT, `block ${block} is said to be at byte ${start}, and the image has ${this.#image.size} bytes`);
  }

  #refuseReserved(block: number, start: number): void {
    const { reserved, bitmapBytes } = this.#header;
    const end = start + bitmapBytes + this.blockBytes;
    const overlapped = reserved.find((range) => start < range.end && range.start < end);
    if (overlapped === undefined) return;
    const { what, start: at } = overlapped;
    throw broken(FORMAT, `block ${block} is said to be at byte ${start}, and overlaps ${what} at byte ${at}`);
  }

  peek(block: number): Block | null | undefined {
    const start = this.#startOf(block);
    if (start === null) return null;
    const place = start + this.#header.bitmapBytes;
    if (this.#isFull[block] === 1) return { place, present: null };
    const present = this.#bits.get(block);
    return present && { place, present };
  }

  async get(block: number): Promise<Block | null> {
    const known = this.peek(block);
    if (known !== undefined) return known;
    const loading = this.#loading.get(block) ?? this.#load(block).finally(() => this.#loading.delete(block));
    this.#loading.set(block, loading);
    return await loading;
  }

  async #load(block: number): Promise<Block> {
    const { bitmapBytes } = this.#header;
    const start = this.#startOf(block) as number;
    let bits: SectorBits;
    let changes: number;
    do {
      changes = this.#changes;
      bits = new SectorBits(await readUpTo(this.#image, start, bitmapBytes), this.#sectors);
      // what was read may be older than what was marked meanwhile
    } while (changes !== this.#changes);
    const place = start + bitmapBytes;
    this.#refuseLost(block, place, bits);
    this.#keep(block, bits);
    return { place, present: this.#isFull[block] === 1 ? null : bits };
  }

  /** The last block may be cut after a crash, but not sectors that the image is said to have. */
  #refuseLost(block: number, place: number, bits: SectorBits): void {
    const needed = Math.min(this.blockBytes, this.#footer.size - block * this.blockBytes);
    if (place + needed <= this.#image.size) return;
    const first = Math.max(0, Math.floor((this.#image.size - place) / SECTOR_BYTES));
    const end = Math.ceil(needed / SECTOR_BYTES);
    for (let at = first; at < end; ) {
      const { count, present } = bits.run(at, end);
      if (present) throw broken(FORMAT, `block ${block} is cut off at the end of the image`);
      at += count;
    }
  }

  #keep(block: number, bits: SectorBits): void {
    this.#bits.delete(block);
    if (bits.isFull) {
      this.#isFull[block] = 1;
      return;
    }
    this.#bits.set(block, bits);
    for (const oldest of this.#bits.keys()) {
      if (this.#bits.size * bits.bytes.length <= MOST_BITMAP_BYTES) break;
      this.#bits.delete(oldest);
    }
  }

  async allocate(): Promise<number> {
    const start = await (this.#space as EndSpace).take();
    if (start / SECTOR_BYTES < NONE) return start + this.#header.bitmapBytes;
    throw new FusetapError('NO_SPACE', 'a VHD cannot be larger than 2 TiB', { errno: 28 });
  }

  async add(block: number, place: number, { first, count }: Sectors): Promise<void> {
    const { bitmapBytes, tableAt } = this.#header;
    const bits = new SectorBits(Buffer.alloc(bitmapBytes), this.#sectors);
    bits.set(first, count);
    await writeAll(this.#image, bits.bytes, place - bitmapBytes);
    const entry = Buffer.alloc(4);
    entry.writeUInt32BE((place - bitmapBytes) / SECTOR_BYTES);
    await writeAll(this.#image, entry, tableAt + 4 * block);
    this.#entries[block] = entry.readUInt32BE();
    this.#changes += 1;
    this.#keep(block, bits);
  }

  async mark(block: number, { first, count }: Sectors): Promise<void> {
    const known = await this.get(block);
    if (known === null || known.present === null) return;
    const bits = new SectorBits(Buffer.from(known.present.bytes), this.#sectors);
    bits.set(first, count);
    const from = Math.floor(first / 8 / SECTOR_BYTES) * SECTOR_BYTES;
    const to = roundUp((first + count) / 8, SECTOR_BYTES);
    // whole sectors of the bitmap: a device writes no less
    await writeAll(this.#image, bits.bytes.subarray(from, to), known.place - this.#header.bitmapBytes + from);
    this.#changes += 1;
    this.#keep(block, bits);
  }

  giveBack(place: number): void {
    this.#space?.giveBack(place - this.#header.bitmapBytes);
  }

  async close(): Promise<void> {
    // it is not at the end if its write has failed when it moved
    await this.#placeFooter(0);
  }
}

/**
 * Writes the footer at the end that a crash has left out, and gives room to a last block that it has cut.
 * @returns whether the footer was not there @throws as `load`
 */
export async function restoreFooter(parts: VhdParts): Promise<boolean> {
  const table = new AllocationTable(parts, new Barrier(() => parts.image.flush()));
  await table.load();
  return table.wasRestored;
}
