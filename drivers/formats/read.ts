/** Reads the headers of formats. The lengths and numbers in them are hostile input until they are checked. */
import type { Disk } from '../disk.js';
import { broken } from './faults.js';

/** Reads `length` bytes, fewer at the end of the disk. The caller has a bound for `length`. */
export async function readUpTo(disk: Disk, offset: number, length: number): Promise<Buffer> {
  const bytes = Buffer.alloc(Math.max(0, Math.min(length, disk.size - offset)));
  await disk.read(bytes, offset);
  return bytes;
}

/** Reads a number of 8 bytes that counts bytes. @throws FusetapError FAILED above Number.MAX_SAFE_INTEGER */
export function sizeAt(bytes: Buffer, at: number, order: 'be' | 'le', format: string): number {
  const value = order === 'be' ? bytes.readBigUInt64BE(at) : bytes.readBigUInt64LE(at);
  if (value <= BigInt(Number.MAX_SAFE_INTEGER)) return Number(value);
  throw broken(format, `its size of ${value} bytes is too large`);
}
