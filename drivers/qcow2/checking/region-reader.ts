/** Reads a region of an image whose length is not known from its begin on, in parts. */
import type { Disk } from '../../disk.js';
import { readUpTo } from '../../formats/read.js';

const PART_BYTES = 64 << 10;

export class RegionReader {
  /** how much was read or skipped */
  doneBytes = 0;
  readonly #image: Disk;
  readonly #offset: number;
  readonly #mostBytes: number;
  #part: Buffer = Buffer.alloc(0);
  /** where the part begins in the region */
  #partAt = 0;

  /** @param mostBytes the region has no more than this */
  constructor(image: Disk, offset: number, mostBytes: number) {
    this.#image = image;
    this.#offset = offset;
    this.#mostBytes = mostBytes;
  }

  /** @param length at most PART_BYTES @returns null if the region or the image ends before */
  async next(length: number): Promise<Buffer | null> {
    const at = this.doneBytes;
    if (!this.skip(length)) return null;
    if (at + length > this.#partAt + this.#part.length || at < this.#partAt) {
      this.#part = await readUpTo(this.#image, this.#offset + at, PART_BYTES);
      this.#partAt = at;
    }
    return this.#part.subarray(at - this.#partAt, at - this.#partAt + length);
  }

  /** @returns false if the region or the image ends before */
  skip(length: number): boolean {
    const end = this.doneBytes + length;
    if (end > this.#mostBytes || this.#offset + end > this.#image.size) return false;
    this.doneBytes = end;
    return true;
  }
}
