/**
 * The bytes of a disk for the readers of superblocks. Offsets and lengths come from the disk, so every read is checked
 * here: nothing outside the disk is read, and a chain that leads nowhere ends when the budget is used up.
 */
import type { ReadBytes } from '../partitions/partition.js';

/** the superblocks themselves: the last is that of btrfs, at 64 KiB; read at once */
export const HEAD_BYTES = 68 << 10;
/** what a reader may follow: the root directory of FAT, the master file table of NTFS */
const MOST_READS = 64;
const MOST_BYTES = 512 << 10;

export class DiskBytes {
  /** of the disk, in bytes */
  readonly size: number;
  readonly #head: Buffer;
  readonly #read: ReadBytes;
  #readsLeft = MOST_READS;
  #bytesLeft = MOST_BYTES;

  private constructor(size: number, head: Buffer, read: ReadBytes) {
    this.size = size;
    this.#head = head;
    this.#read = read;
  }

  /** @throws what `read` rejects with */
  static async of(read: ReadBytes, size: number): Promise<DiskBytes> {
    return new DiskBytes(size, asBuffer(await read(0, Math.min(size, HEAD_BYTES))), read);
  }

  /** A range of the first bytes of the disk; null if the disk does not have all of it. */
  head(offset: number, length: number): Buffer | null {
    return this.#isInHead(offset, length) ? this.#head.subarray(offset, offset + length) : null;
  }

  /**
   * Any range of the disk; null if it is not wholly inside, or if too much was read already.
   * @throws what `read` rejects with
   */
  async at(offset: number, length: number): Promise<Buffer | null> {
    if (this.#isInHead(offset, length)) return this.head(offset, length);
    const isInside = Number.isSafeInteger(offset) && offset >= 0 && length > 0 && offset + length <= this.size;
    if (!isInside || this.#readsLeft === 0 || this.#bytesLeft < length) return null;
    this.#readsLeft -= 1;
    this.#bytesLeft -= length;
    return asBuffer(await this.#read(offset, length));
  }

  #isInHead(offset: number, length: number): boolean {
    return Number.isSafeInteger(offset) && offset >= 0 && length > 0 && offset + length <= this.#head.length;
  }
}

function asBuffer({ buffer, byteOffset, byteLength }: Uint8Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
