/** Memory of replies that one client uses again: allocating it anew would cost more than many a reply. */

const SMALLEST_BYTES = 512;
/** the most that is kept for later */
const KEPT_BYTES = 4 << 20;

export class ReplyBuffers {
  /** by the logarithm of their size */
  readonly #free = new Map<number, Buffer[]>();
  #freeBytes = 0;

  /** Memory of at least so many bytes, which are undefined. */
  take(length: number): Buffer {
    const size = 32 - Math.clz32(Math.max(length, SMALLEST_BYTES) - 1);
    const free = this.#free.get(size)?.pop();
    if (free === undefined) return Buffer.allocUnsafeSlow(2 ** size);
    this.#freeBytes -= free.byteLength;
    return free;
  }

  /** @param memory one that `take` has given, when nobody uses it any more */
  give(memory: Buffer): void {
    if (this.#freeBytes + memory.byteLength > KEPT_BYTES) return;
    this.#freeBytes += memory.byteLength;
    const size = 31 - Math.clz32(memory.byteLength);
    const free = this.#free.get(size);
    if (free === undefined) this.#free.set(size, [memory]);
    else free.push(memory);
  }
}
