/**
 * One disk in the writer. Each strand writes its own blocks, each time with the next generation, and compares what it
 * reads with what was acknowledged. Only one strand writes a block, so its expected content is known exactly; after a
 * failed write, each of its sectors may be old or new.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Beat, Line, Target } from './messages.js';
import { BLOCK_BYTES, compareBlock, fillBlock } from './pattern.js';

export const STRANDS = 2;
const LONGEST_RUN_BLOCKS = 64;
/** the pause between two I/Os of a strand: other processes need the machine too */
const PAUSE_MS = 24;
const RETRY_MS = 100;
/** how often a continuing error is reported */
const REPEAT_MS = 2_000;

export class WrittenDisk {
  readonly #target: Target;
  readonly #tell: (line: Line) => void;
  readonly #acknowledged: Uint32Array;
  /** the generations of failed writes, by block */
  readonly #doubtful = new Map<number, number[]>();
  readonly #waiting = new Map<number, number>();
  #file: FileHandle | null = null;
  #strands: Promise<unknown> | null = null;
  #ending = false;
  #next = 0;
  #done = 0;
  #compared = 0;
  #longestMs = 0;
  #lastError = { code: '', atMs: 0 };

  constructor(target: Target, tell: (line: Line) => void) {
    this.#target = target;
    this.#tell = tell;
    this.#acknowledged = new Uint32Array(Math.floor(target.sizeBytes / BLOCK_BYTES));
  }

  async begin(): Promise<void> {
    this.#file = await open(this.#target.path, 'r+');
    this.#strands = Promise.all(Array.from({ length: STRANDS }, (_, strand) => this.#work(strand)));
  }

  /** Ends after the I/Os in progress are answered. */
  async end(readsAll: boolean): Promise<void> {
    this.#ending = true;
    await this.#strands;
    if (readsAll) await this.#compareAll();
    await this.#file?.close().catch(() => {});
  }

  /** @throws Error if a file does not have the acknowledged data */
  async compareWith(file: string): Promise<void> {
    const handle = await open(file, 'r');
    try {
      const buffer = Buffer.alloc(BLOCK_BYTES);
      for (let block = 0; block < this.#acknowledged.length; block++) {
        buffer.fill(0);
        await handle.read(buffer, 0, BLOCK_BYTES, block * BLOCK_BYTES);
        const wrong = compareBlock(buffer, this.#place(block), this.#allowed(block));
        if (wrong !== null) throw new Error(`${file}: ${wrong}`);
      }
    } finally {
      await handle.close();
    }
  }

  beat(): Beat {
    const { path } = this.#target;
    const oldest = [...this.#waiting.values()].reduce((least, ms) => Math.min(least, ms), Number.POSITIVE_INFINITY);
    const beat = { path, done: this.#done, compared: this.#compared, longestMs: this.#longestMs };
    this.#longestMs = 0;
    return { ...beat, waitsSinceMs: Number.isFinite(oldest) ? oldest : null };
  }

  async #work(strand: number): Promise<void> {
    const ownBlocks = Math.floor(this.#acknowledged.length / STRANDS);
    const first = strand * ownBlocks;
    const buffer = Buffer.alloc(LONGEST_RUN_BLOCKS * BLOCK_BYTES);
    while (!this.#ending) {
      const blocks = Math.random() < 0.7 ? 1 : 1 + Math.floor(Math.random() * Math.min(LONGEST_RUN_BLOCKS, ownBlocks));
      const at = first + Math.floor(Math.random() * (ownBlocks - blocks + 1));
      const part = buffer.subarray(0, blocks * BLOCK_BYTES);
      const wrote = await this.#write(part, at);
      const read = await this.#readBack(part, at);
      const flushed = Math.random() > 0.05 || (await this.#io('fsync', () => this.#open().datasync()));
      await delay(wrote && read && flushed ? Math.random() * PAUSE_MS : RETRY_MS);
    }
  }

  async #write(part: Buffer, at: number): Promise<boolean> {
    const blocks = part.length / BLOCK_BYTES;
    const generations = Array.from({ length: blocks }, (_, i) => 1 + Math.max(...this.#allowed(at + i)));
    for (const [i, generation] of generations.entries()) {
      fillBlock(part.subarray(i * BLOCK_BYTES), this.#place(at + i), generation);
      // until it is acknowledged; forever if it fails
      this.#doubtful.set(at + i, [...(this.#doubtful.get(at + i) ?? []), generation]);
    }
    let done = 0;
    const wrote = await this.#io('write', async () => {
      while (done < part.length) {
        const { bytesWritten } = await this.#open().write(part, done, part.length - done, at * BLOCK_BYTES + done);
        done += bytesWritten;
      }
    });
    for (const [i, generation] of generations.entries()) {
      if ((i + 1) * BLOCK_BYTES > done) break;
      this.#acknowledged[at + i] = generation;
      this.#doubtful.delete(at + i);
    }
    return wrote;
  }

  /** Reads and compares. After a failed read, the block is compared the next time. */
  async #readBack(part: Buffer, at: number): Promise<boolean> {
    const done = await this.#io('read', async () => {
      for (let have = 0; have < part.length; ) {
        const { bytesRead } = await this.#open().read(part, have, part.length - have, at * BLOCK_BYTES + have);
        if (bytesRead === 0) throw Object.assign(new Error('the disk is shorter'), { code: 'SHORT' });
        have += bytesRead;
      }
    });
    if (!done) return false;
    for (let i = 0; i < part.length / BLOCK_BYTES; i++) {
      const found = part.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
      const text = compareBlock(found, this.#place(at + i), this.#allowed(at + i));
      this.#compared += 1;
      if (text !== null) this.#tell({ kind: 'mismatch', path: this.#target.path, text });
    }
    return true;
  }

  async #compareAll(): Promise<void> {
    const buffer = Buffer.alloc(LONGEST_RUN_BLOCKS * BLOCK_BYTES);
    for (let at = 0; at < this.#acknowledged.length; at += LONGEST_RUN_BLOCKS) {
      const blocks = Math.min(LONGEST_RUN_BLOCKS, this.#acknowledged.length - at);
      await this.#readBack(buffer.subarray(0, blocks * BLOCK_BYTES), at);
    }
  }

  /** @returns whether it succeeded; reports an error */
  async #io(operation: string, act: () => Promise<void>): Promise<boolean> {
    const number = this.#next++;
    const fromMs = Date.now();
    this.#waiting.set(number, fromMs);
    try {
      await act();
      this.#lastError.code = '';
      this.#done += 1;
      return true;
    } catch (error) {
      this.#tellFailure(operation, (error as NodeJS.ErrnoException).code ?? String(error), fromMs);
      return false;
    } finally {
      this.#waiting.delete(number);
      this.#longestMs = Math.max(this.#longestMs, Date.now() - fromMs);
    }
  }

  #tellFailure(operation: string, code: string, fromMs: number): void {
    const untilMs = Date.now();
    if (code === this.#lastError.code && untilMs - this.#lastError.atMs < REPEAT_MS) return;
    this.#lastError = { code, atMs: untilMs };
    this.#tell({ kind: 'failed', path: this.#target.path, operation, code, fromMs, untilMs });
  }

  #open(): FileHandle {
    if (this.#file === null) throw new TypeError('the disk was not opened');
    return this.#file;
  }

  #allowed(block: number): number[] {
    return [this.#acknowledged[block] ?? 0, ...(this.#doubtful.get(block) ?? [])];
  }

  #place(block: number): { disk: number; block: number } {
    return { disk: this.#target.disk, block };
  }
}
