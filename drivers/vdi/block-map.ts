/**
 * The map of a VDI: where its blocks are.
 *
 *      block ──► entry of the map ──► the n-th block from where the data begins │ none: zeros
 *
 * The map is in memory. A new block is written in this order: data ──► entry ──► acknowledged. The header counts the blocks
 * that have a place, and other programs put their next block there. So the count is made larger before any of the space
 * is used, and right at the end. After a crash it is too large, never too small.
 */

import type { Block, GrowingTable } from '../blocks/block-table.js';
import { EndSpace } from '../blocks/end-space.js';
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { Barrier } from '../lookup/barrier.js';
import { writeAll } from '../lookup/write-all.js';
import { COUNT_AT, FORMAT, type Header, readHeader } from './header.js';

/** an entry from here on says that the block has no place: ~0 was never written, ~0 − 1 is zeros */
const FIRST_NONE = 0xffff_fffe;
const CHUNK_BYTES = 1 << 20;

export class BlockMap implements GrowingTable {
  readonly blockBytes: number;
  readonly #image: Disk;
  readonly #header: Header;
  readonly #barrier: Barrier | null;
  readonly #space: EndSpace | null;
  #entries = new Uint32Array(0);
  /** behind the last block that has a place, in blocks */
  #end = 0;
  /** as the header has it */
  #count: number;

  /** @param barrier null: the image is only read */
  constructor(image: Disk, header: Header, barrier: Barrier | null) {
    const { blockBytes, dataStart } = header;
    this.blockBytes = blockBytes;
    this.#image = image;
    this.#header = header;
    this.#barrier = barrier;
    this.#count = header.count;
    this.#space =
      barrier &&
      new EndSpace({
        ...{ image, barrier, strideBytes: blockBytes },
        announce: (end) => this.#setCount((end - dataStart) / blockBytes),
      });
  }

  async load(): Promise<void> {
    const { mapStart, blocks, dataStart, blockBytes } = this.#header;
    this.#entries = new Uint32Array(blocks);
    for (let done = 0; done < 4 * blocks; done += CHUNK_BYTES) {
      const length = Math.min(CHUNK_BYTES, 4 * blocks - done);
      const bytes = await readUpTo(this.#image, mapStart + done, length);
      if (bytes.length < length) throw broken(FORMAT, 'its map is cut off');
      for (let at = 0; at < length; at += 4) this.#entries[(done + at) / 4] = bytes.readUInt32LE(at);
    }
    if (this.#barrier === null) return;
    this.#count = (await readUpTo(this.#image, COUNT_AT, 4)).readUInt32LE(0);
    this.#end = this.#checkAll();
    this.#space?.start(dataStart + this.#end * blockBytes);
  }

  /** Two blocks at one place would destroy each other when they are written. @returns behind the last one, in blocks */
  #checkAll(): number {
    let end = 0;
    for (const [block, entry] of this.#entries.entries()) {
      if (entry >= FIRST_NONE) continue;
      this.#placeOf(block, entry);
      end = Math.max(end, entry + 1);
    }
    const used = new Uint8Array(Math.ceil(end / 8));
    for (const entry of this.#entries) {
      if (entry >= FIRST_NONE) continue;
      const bit = 1 << (entry & 7);
      if (((used[entry >>> 3] as number) & bit) !== 0) throw broken(FORMAT, `two of its blocks are at place ${entry}`);
      used[entry >>> 3] = (used[entry >>> 3] as number) | bit;
    }
    return end;
  }

  async get(block: number): Promise<Block | null> {
    return this.peek(block);
  }

  peek(block: number): Block | null {
    const entry = this.#entries[block] ?? FIRST_NONE;
    return entry >= FIRST_NONE ? null : { place: this.#placeOf(block, entry), present: null };
  }

  /** @throws FusetapError FAILED if the place is outside of the image */
  #placeOf(block: number, entry: number): number {
    const { dataStart, blockBytes, size } = this.#header;
    const place = dataStart + entry * blockBytes;
    const end = place + Math.min(blockBytes, size - block * blockBytes);
    if (end <= this.#image.size) return place;
    throw broken(FORMAT, `block ${block} ends at byte ${end}, and the image has ${this.#image.size} bytes`);
  }

  /** Whether all blocks are in order, one after the other, so that the disk is one run of the image. */
  get isInOrder(): boolean {
    return this.#entries.every((entry, block) => entry === block);
  }

  /** The number of blocks that have a place, after `load` for writing: as the header should count them. */
  get used(): number {
    return this.#end;
  }

  async allocate(): Promise<number> {
    const place = await (this.#space as EndSpace).take();
    const entry = (place - this.#header.dataStart) / this.blockBytes;
    if (entry >= FIRST_NONE) {
      throw new FusetapError('NO_SPACE', 'a VDI has no numbers for more blocks', { errno: 28 });
    }
    this.#end = Math.max(this.#end, entry + 1);
    return place;
  }

  giveBack(place: number): void {
    this.#space?.giveBack(place);
  }

  async add(block: number, place: number): Promise<void> {
    const { dataStart, mapStart } = this.#header;
    const entry = (place - dataStart) / this.blockBytes;
    await writeAll(this.#image, u32(entry), mapStart + 4 * block);
    this.#entries[block] = entry;
  }

  async mark(): Promise<void> {
    throw new Error('a block of a VDI has all its sectors');
  }

  /** Makes the count of the header right. @returns whether it was wrong */
  async correctCount(): Promise<boolean> {
    if (this.#count === this.#end) return false;
    // what it counts must be durable before
    await this.#barrier?.pass();
    await this.#setCount(this.#end);
    await this.#barrier?.pass();
    return true;
  }

  async close(): Promise<void> {
    await this.correctCount();
  }

  async #setCount(count: number): Promise<void> {
    await writeAll(this.#image, u32(count), COUNT_AT);
    this.#count = count;
  }
}

/** Makes the count of blocks right that a killed server has left. @returns whether it was wrong @throws as `load` */
export async function repairCount(image: Disk): Promise<boolean> {
  const map = new BlockMap(image, await readHeader(image), new Barrier(() => image.flush()));
  await map.load();
  return await map.correctCount();
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
