/**
 * Memory that requests on the event loop use one after the other. Without it, each write and read of 64 KiB would allocate
 * as much, and collecting that took longer than the rest of the request.
 *
 *      take(length) ──► 128 B, 256 B, … 512 KiB, 1 MiB: one that is free, else a new one ──► give ──► free again
 */
import { Request } from '../protocol/message.js';

const SMALLEST_BYTES = 128;
/** the most memory that is kept free */
const KEPT_BYTES = 8 << 20;

export class RequestPool {
  /** by the logarithm of their size */
  readonly #free: Request[][] = [];
  #freeBytes = 0;

  /** Memory with room for `length` bytes, which are undefined. Give it back when nobody uses it any more, or never. */
  take(length: number): Request {
    const size = sizeClass(length);
    const free = this.#free[size]?.pop();
    if (free === undefined) return new Request(Buffer.allocUnsafeSlow(2 ** size));
    this.#freeBytes -= 2 ** size;
    return free;
  }

  /** @param request one that `take` has given */
  give(request: Request): void {
    const { byteLength } = request.bytes;
    if (this.#freeBytes + byteLength > KEPT_BYTES) return;
    this.#freeBytes += byteLength;
    const size = sizeClass(byteLength);
    const free = this.#free[size] ?? [];
    free.push(request);
    this.#free[size] = free;
  }
}

/** The smallest power of two with room for that many bytes, as its logarithm. */
function sizeClass(length: number): number {
  return 32 - Math.clz32(Math.max(length, SMALLEST_BYTES) - 1);
}
