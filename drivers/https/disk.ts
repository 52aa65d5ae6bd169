/** The disk of a file on a web server: reads come from the cache of blocks; what is missing is fetched in pieces of up to 1 MiB. */
import { allDone } from '../all-done.js';
import type { RawDisk } from '../driver.js';
import type { FileFacts } from './answer.js';
import { BLOCK_BYTES, type BlockCache } from './block-cache.js';
import type { WebFile } from './web-file.js';

/** the blocks of one request */
const MOST_BLOCKS = 16;
/** reads one after the other, until more is fetched than was asked for */
const STREAK = 2;

export interface WebDisk {
  readonly file: WebFile;
  readonly facts: FileFacts;
  readonly cache: BlockCache;
}

export function webDisk(parts: WebDisk, close: () => Promise<void>): RawDisk {
  const reader = new BlockReader(parts);
  return {
    size: parts.facts.size,
    read: (buffer, offset) => reader.read(buffer, offset),
    giveUp: () => parts.file.giveUp(),
    close: async () => {
      await parts.file.close();
      await close();
    },
  };
}

class BlockReader {
  readonly #parts: WebDisk;
  /** blocks that are being fetched */
  readonly #coming = new Map<number, Promise<Uint8Array>>();
  readonly #blockCount: number;
  /** where the last read ended, and how many reads followed one another */
  #end = -1;
  #streak = 0;

  constructor(parts: WebDisk) {
    this.#parts = parts;
    this.#blockCount = Math.ceil(parts.facts.size / BLOCK_BYTES);
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    const end = offset + buffer.byteLength;
    const [first, last] = [Math.floor(offset / BLOCK_BYTES), Math.floor((end - 1) / BLOCK_BYTES)];
    const missing: number[] = [];
    for (let block = first; block <= last; block++) {
      const { part, from } = partOf(buffer, offset, block);
      if (!this.#parts.cache.read(block, from, part)) missing.push(block);
    }
    this.#lookAhead(offset, end, last);
    if (missing.length === 0) return;
    this.#fetch(missing);
    await allDone(
      missing.map(async (block) => {
        const { part, from } = partOf(buffer, offset, block);
        const bytes = await (this.#coming.get(block) as Promise<Uint8Array>);
        part.set(bytes.subarray(from, from + part.byteLength));
      }),
    );
  }

  /** Reads that follow one another will go on: fetches what comes next, if it is not there. */
  #lookAhead(offset: number, end: number, last: number): void {
    this.#streak = offset === this.#end ? this.#streak + 1 : 0;
    this.#end = end;
    if (this.#streak < STREAK) return;
    const next = last + 1;
    const until = Math.min(next + MOST_BLOCKS, this.#blockCount);
    // half of it is still to be read: nothing to do yet
    if (this.#isThere(Math.min(next + MOST_BLOCKS / 2, until - 1))) return;
    const missing: number[] = [];
    for (let block = next; block < until; block++) if (!this.#isThere(block)) missing.push(block);
    this.#fetch(missing);
  }

  #isThere(block: number): boolean {
    return this.#parts.cache.has(block) || this.#coming.has(block);
  }

  /** Fetches the blocks that are not being fetched. @param blocks in order */
  #fetch(blocks: readonly number[]): void {
    let run: number[] = [];
    for (const block of blocks) {
      if (this.#coming.has(block)) continue;
      const isNext = run.length > 0 && run.length < MOST_BLOCKS && block === (run.at(-1) as number) + 1;
      if (run.length > 0 && !isNext) {
        this.#fetchRun(run[0] as number, run.length);
        run = [];
      }
      run.push(block);
    }
    if (run.length > 0) this.#fetchRun(run[0] as number, run.length);
  }

  #fetchRun(first: number, count: number): void {
    const { file, facts, cache } = this.#parts;
    const offset = first * BLOCK_BYTES;
    const length = Math.min(count * BLOCK_BYTES, facts.size - offset);
    const bytes = Buffer.allocUnsafeSlow(length);
    const whole = file.read({ offset, length }, bytes);
    for (let index = 0; index < count; index++) {
      const block = first + index;
      const coming = whole.then(() => {
        const own = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
        cache.put(block, own);
        return own;
      });
      this.#coming.set(block, coming);
      // whoever waits for it gets the error; nobody may wait
      coming.catch(() => {}).finally(() => this.#coming.delete(block));
    }
  }
}

/** The part of a buffer that a block has, and where it begins in the block. */
function partOf(buffer: Uint8Array, offset: number, block: number): { part: Uint8Array; from: number } {
  const start = Math.max(offset, block * BLOCK_BYTES);
  const end = Math.min(offset + buffer.byteLength, (block + 1) * BLOCK_BYTES);
  return { part: buffer.subarray(start - offset, end - offset), from: start - block * BLOCK_BYTES };
}
