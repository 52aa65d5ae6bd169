/**
 * The memory of replies and of large writes, of all clients.
 *
 *      │ room for a header │ data: begin 64 bytes after a page │
 *
 * Where data begin matters: the kernel copies 1 MiB to an address that is no multiple of 32 in 620 µs, else in 140 µs, and
 * to the begin of a page in 190 µs (AMD EPYC). Memory of malloc, as that of a Buffer, begins 16 bytes after a page.
 */
import { addressOf } from '../../system/libc.js';
import { MemoryPool } from '../../system/memory-pool.js';
import { bytesToPage, PAGE_BYTES } from '../../system/page.js';

/** before the data; the longest header of a reply has 28 */
export const HEAD_BYTES = 64;
const SMALLEST_BYTES = 512;
const KEPT_BYTES = 16 << 20;

const pool = new MemoryPool<Buffer>({
  ...{ smallestBytes: SMALLEST_BYTES, keptBytes: KEPT_BYTES },
  make,
  bytesOf: ({ byteLength }) => byteLength - HEAD_BYTES,
});

/** Memory for data of that length and a header. Give it back when nobody uses it any more, or never. */
export function takeMemory(length: number): Buffer {
  return pool.take(length);
}

export function giveMemory(memory: Buffer): void {
  pool.give(memory);
}

function make(bytes: number): Buffer {
  // small data are copied fast wherever they begin
  if (bytes < PAGE_BYTES) return Buffer.allocUnsafeSlow(HEAD_BYTES + bytes);
  const all = Buffer.allocUnsafeSlow(PAGE_BYTES + HEAD_BYTES + bytes);
  const start = bytesToPage(addressOf(all));
  return all.subarray(start, start + HEAD_BYTES + bytes);
}
