/**
 * Blocks of a file on a web server, in a memfd that the keeper has too: the next server goes on with what is there.
 *
 *      0        ┌ what is in each slot: the number of a block, counted from 1; 0: nothing
 *      …        ├ slots of 64 KiB
 *
 * The entry of a slot is 0 while its bytes change, so a server that dies leaves no wrong block. The memfd is read and written by
 * system calls: a mapping could not be undone, and a cache of 16 GiB is larger than a view of Node may be.
 */
import { fstatSync, ftruncateSync } from 'node:fs';
import { addressOf, addSeals, F_SEAL_GROW, F_SEAL_SHRINK, memfdCreate, pread, pwrite } from '../../system/libc.js';

export const BLOCK_BYTES = 64 << 10;
const PAGE = 4096;
const ENTRY_BYTES = 4;

export class BlockCache {
  readonly fd: number;
  readonly #slotCount: number;
  /** where the slots begin */
  readonly #slotsAt: number;
  /** block → slot, the one that was used longest ago first */
  readonly #slots = new Map<number, number>();
  readonly #free: number[] = [];
  #isLoaded = false;

  /** @param fd a memfd of `create` with the same number of bytes */
  constructor(fd: number, cacheBytes: number) {
    this.fd = fd;
    this.#slotCount = slotCount(cacheBytes);
    this.#slotsAt = tableBytes(this.#slotCount);
    // with another number of slots they would begin elsewhere
    if (fstatSync(fd).size !== wholeBytes(cacheBytes)) throw new RangeError('the memory of the cache has another size');
  }

  /** To be called before each use: an earlier server may change the memory until the first request comes here. */
  #load(): void {
    if (this.#isLoaded) return;
    this.#isLoaded = true;
    const table = new Uint32Array(this.#slotCount);
    // what cannot be read is not there
    if (!this.#read(table, 0)) table.fill(0);
    for (let slot = table.length - 1; slot >= 0; slot--) {
      const block = (table[slot] as number) - 1;
      if (block >= 0 && !this.#slots.has(block)) this.#slots.set(block, slot);
      else this.#free.push(slot);
    }
  }

  /** A memfd for that many bytes of blocks; memory is taken when a block comes. */
  static create(cacheBytes: number): number {
    const fd = memfdCreate('fusetap-web-cache');
    ftruncateSync(fd, wholeBytes(cacheBytes));
    addSeals(fd, F_SEAL_GROW | F_SEAL_SHRINK);
    return fd;
  }

  has(block: number): boolean {
    this.#load();
    return this.#slots.has(block);
  }

  /** Copies a part of a block. @returns false if the block is not there */
  read(block: number, from: number, to: Uint8Array): boolean {
    this.#load();
    const slot = this.#slots.get(block);
    if (slot === undefined) return false;
    this.#slots.delete(block);
    if (!this.#read(to, this.#slotsAt + slot * BLOCK_BYTES + from)) {
      this.#free.push(slot);
      return false;
    }
    this.#slots.set(block, slot);
    return true;
  }

  /**
   * Keeps a block, if there is memory for it.
   * @param bytes of the whole block; the last one of a file may be shorter
   */
  put(block: number, bytes: Uint8Array): void {
    this.#load();
    if (this.#slots.has(block)) return;
    const slot = this.#free.pop() ?? this.#evict();
    const isKept =
      this.#setEntry(slot, 0) &&
      this.#write(bytes, this.#slotsAt + slot * BLOCK_BYTES) &&
      this.#setEntry(slot, block + 1);
    if (isKept) this.#slots.set(block, slot);
    else this.#free.push(slot);
  }

  #setEntry(slot: number, entry: number): boolean {
    return this.#write(Uint32Array.of(entry), slot * ENTRY_BYTES);
  }

  /** @returns whether all was read */
  #read(to: Uint8Array | Uint32Array, at: number): boolean {
    return pread(this.fd, addressOf(to), to.byteLength, at) === to.byteLength;
  }

  /** @returns whether all was written */
  #write(from: Uint8Array | Uint32Array, at: number): boolean {
    return pwrite(this.fd, addressOf(from), from.byteLength, at) === from.byteLength;
  }

  #evict(): number {
    const [[block, slot]] = this.#slots.entries() as unknown as [[number, number]];
    this.#slots.delete(block);
    return slot;
  }
}

const slotCount = (cacheBytes: number): number => Math.floor(cacheBytes / BLOCK_BYTES);

const tableBytes = (count: number): number => Math.ceil((ENTRY_BYTES * count) / PAGE) * PAGE;

export function wholeBytes(cacheBytes: number): number {
  const count = slotCount(cacheBytes);
  return tableBytes(count) + count * BLOCK_BYTES;
}
