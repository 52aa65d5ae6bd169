/**
 * The bytes of a file, in memory: only pages that were written take space. A copy shares its pages with the original
 * until one of them writes, so a thousand versions of an image are cheap.
 */
import { open, readFile } from 'node:fs/promises';

/** the kernel looks for a kill signal after each page that it has written */
export const PAGE_BYTES = 4096;

export class SparseBytes {
  #size: number;
  readonly #pages: Map<number, Buffer>;
  /** pages that no copy shares */
  readonly #own = new Set<number>();

  constructor(size: number, pages: ReadonlyMap<number, Buffer> = new Map()) {
    this.#size = size;
    this.#pages = new Map(pages);
  }

  static from(bytes: Uint8Array): SparseBytes {
    const made = new SparseBytes(bytes.length);
    made.write(bytes, 0);
    for (const [page, kept] of made.#pages) if (isZero(kept)) made.#pages.delete(page);
    return made;
  }

  static async load(path: string): Promise<SparseBytes> {
    return SparseBytes.from(await readFile(path));
  }

  get size(): number {
    return this.#size;
  }

  copy(): SparseBytes {
    this.#own.clear();
    return new SparseBytes(this.#size, this.#pages);
  }

  /** Fills the buffer. @throws RangeError beyond the end */
  read(buffer: Uint8Array, offset: number): void {
    this.#check(offset, buffer.length);
    for (const { page, from, to, at } of pagesOf(offset, buffer.length)) {
      const kept = this.#pages.get(page);
      if (kept === undefined) buffer.fill(0, at, at + to - from);
      else buffer.set(kept.subarray(from, to), at);
    }
  }

  /** @throws RangeError beyond the end */
  write(bytes: Uint8Array, offset: number): void {
    this.#check(offset, bytes.length);
    for (const { page, from, to, at } of pagesOf(offset, bytes.length)) {
      this.#pageToWrite(page).set(bytes.subarray(at, at + to - from), from);
    }
  }

  /** Makes a range zeros; whole pages take no space then. @throws RangeError beyond the end */
  zero(offset: number, length: number): void {
    this.#check(offset, length);
    for (const { page, from, to } of pagesOf(offset, length)) {
      if (to - from === PAGE_BYTES) this.#pages.delete(page);
      else if (this.#pages.has(page)) this.#pageToWrite(page).fill(0, from, to);
    }
  }

  /** Bytes that are added are zeros. */
  resize(size: number): void {
    const old = this.#size;
    this.#size = Math.max(old, size);
    if (size < old) this.zero(size, old - size);
    this.#size = size;
  }

  /** The next page at or after `offset` that takes space: where it begins; the size if there is none. */
  nextData(offset: number): number {
    for (let page = Math.floor(offset / PAGE_BYTES); page * PAGE_BYTES < this.#size; page++) {
      if (this.#pages.has(page)) return Math.max(offset, page * PAGE_BYTES);
    }
    return this.#size;
  }

  /** The next page at or after `offset` that takes no space: where it begins; the size if there is none. */
  nextHole(offset: number): number {
    for (let page = Math.floor(offset / PAGE_BYTES); page * PAGE_BYTES < this.#size; page++) {
      if (!this.#pages.has(page)) return Math.max(offset, page * PAGE_BYTES);
    }
    return this.#size;
  }

  /** All bytes. */
  toBuffer(): Buffer {
    const bytes = Buffer.alloc(this.#size);
    this.read(bytes, 0);
    return bytes;
  }

  equals(other: SparseBytes): boolean {
    if (this.#size !== other.#size) return false;
    const pages = new Set([...this.#pages.keys(), ...other.#pages.keys()]);
    return [...pages].every((page) => {
      const [one, two] = [this.#pages.get(page), other.#pages.get(page)];
      return one === two || (one ?? NO_PAGE).equals(two ?? NO_PAGE);
    });
  }

  /** Writes the bytes to a new file, or over one. */
  async save(path: string): Promise<void> {
    const file = await open(path, 'w');
    try {
      await file.truncate(this.#size);
      for (const [page, kept] of this.#pages) {
        const at = page * PAGE_BYTES;
        await file.write(kept, 0, Math.min(PAGE_BYTES, this.#size - at), at);
      }
    } finally {
      await file.close();
    }
  }

  #pageToWrite(page: number): Buffer {
    const kept = this.#pages.get(page);
    if (kept !== undefined && this.#own.has(page)) return kept;
    const fresh = kept === undefined ? Buffer.alloc(PAGE_BYTES) : Buffer.from(kept);
    this.#pages.set(page, fresh);
    this.#own.add(page);
    return fresh;
  }

  #check(offset: number, length: number): void {
    if (offset >= 0 && offset + length <= this.#size) return;
    throw new RangeError(`bytes ${offset} to ${offset + length} of a file of ${this.#size} bytes`);
  }
}

const NO_PAGE = Buffer.alloc(PAGE_BYTES);

export function isZero(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes, zeros(bytes.length)) === 0;
}

let zeroBytes = NO_PAGE;

function zeros(length: number): Uint8Array {
  if (zeroBytes.length < length) zeroBytes = Buffer.alloc(length);
  return zeroBytes.subarray(0, length);
}

/** The parts of a range, page by page. */
function* pagesOf(
  offset: number,
  length: number,
): Generator<{ readonly page: number; readonly from: number; readonly to: number; readonly at: number }> {
  const end = offset + length;
  for (let place = offset; place < end; ) {
    const page = Math.floor(place / PAGE_BYTES);
    const from = place % PAGE_BYTES;
    const to = Math.min(PAGE_BYTES, from + end - place);
    yield { page, from, to, at: place - offset };
    place += to - from;
  }
}
