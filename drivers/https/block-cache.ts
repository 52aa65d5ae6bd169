/**
 * Blocks of a file on a web server, in a memfd that the keeper has too: the next server goes on with what is there.
 *
 *      0        ┌ what is in each slot: the number of a block, counted from 1; 0: nothing
 *      …        ├ slots of 64 KiB
 *
 * The entry of a slot is 0 while its bytes change, so a server that dies leaves no wrong block.
 */
import { fstatSync, ftruncateSync } from 'node:fs';
import { addSeals, F_SEAL_GROW, F_SEAL_SHRINK, mapShared, memfdCreate } from '../../system/libc.js';

export const BLOCK_BYTES = 64 << 10;
const PAGE = 4096;

export class BlockCache {
  readonly fd: number;
  readonly #table: Uint32Array;
  readonly #bytes: Uint8Array;
  /** block → slot, the one that was used longest ago first */
  readonly #slots = new Map<number, number>();
  readonly #free: number[] = [];
  #isLoaded = false;

  /** @param fd a memfd of `create` with the same number of bytes */
  constructor(fd: number, cacheBytes: number) {
    const count = slotCount(cacheBytes);
    this.fd = fd;
    // else a read of it would end this process
    if (fstatSync(fd).size !== wholeBytes(cacheBytes)) throw new RangeError('the memory of the cache has another size');
    const memory = mapShared(fd, wholeBytes(cacheBytes));
    this.#table = new Uint32Array(memory, 0, count);
    this.#bytes = new Uint8Array(memory, tableBytes(count));
  }

  /** To be called before each use: an earlier server may change the memory until the first request comes here. */
  #load(): void {
    if (this.#isLoaded) return;
    this.#isLoaded = true;
    for (let slot = this.#table.length - 1; slot >= 0; slot--) {
      const block = (this.#table[slot] as number) - 1;
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
    this.#slots.set(block, slot);
    const at = slot * BLOCK_BYTES + from;
    to.set(this.#bytes.subarray(at, at + to.byteLength));
    return true;
  }

  /** @param bytes of the whole block; the last one of a file may be shorter */
  put(block: number, bytes: Uint8Array): void {
    this.#load();
    if (this.#slots.has(block)) return;
    const slot = this.#free.pop() ?? this.#evict();
    this.#table[slot] = 0;
    this.#bytes.set(bytes, slot * BLOCK_BYTES);
    this.#table[slot] = block + 1;
    this.#slots.set(block, slot);
  }

  #evict(): number {
    const [[block, slot]] = this.#slots.entries() as unknown as [[number, number]];
    this.#slots.delete(block);
    return slot;
  }
}

const slotCount = (cacheBytes: number): number => Math.floor(cacheBytes / BLOCK_BYTES);

const tableBytes = (count: number): number => Math.ceil((4 * count) / PAGE) * PAGE;

export function wholeBytes(cacheBytes: number): number {
  const count = slotCount(cacheBytes);
  return tableBytes(count) + count * BLOCK_BYTES;
}
