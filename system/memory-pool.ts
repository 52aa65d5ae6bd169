/**
 * Memory that requests use one after the other. Without it, each request of 64 KiB would allocate as much, and collecting that
 * took longer than the rest of the request.
 *
 *      take(length) ──► a power of two: one that is free, else a new one ──► give ──► free again
 */

export interface PoolOptions<Item> {
  /** the least size of an item; a power of two */
  readonly smallestBytes: number;
  /** the most memory that is kept free */
  readonly keptBytes: number;
  make(bytes: number): Item;
  bytesOf(item: Item): number;
}

export class MemoryPool<Item> {
  readonly #options: PoolOptions<Item>;
  /** by the logarithm of their size */
  readonly #free: Item[][] = [];
  #freeBytes = 0;

  constructor(options: PoolOptions<Item>) {
    this.#options = options;
  }

  /** Memory with room for `length` bytes, which are undefined. Give it back when nobody uses it any more, or never. */
  take(length: number): Item {
    const size = this.#sizeClass(length);
    const free = this.#free[size]?.pop();
    if (free === undefined) return this.#options.make(2 ** size);
    this.#freeBytes -= 2 ** size;
    return free;
  }

  /** @param item one that `take` has given */
  give(item: Item): void {
    const bytes = this.#options.bytesOf(item);
    if (this.#freeBytes + bytes > this.#options.keptBytes) return;
    this.#freeBytes += bytes;
    const size = this.#sizeClass(bytes);
    const free = this.#free[size] ?? [];
    free.push(item);
    this.#free[size] = free;
  }

  /** The smallest power of two with room for that many bytes, as its logarithm. */
  #sizeClass(length: number): number {
    return 32 - Math.clz32(Math.max(length, this.#options.smallestBytes) - 1);
  }
}
