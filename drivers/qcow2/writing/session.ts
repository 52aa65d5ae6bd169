/**
 * The feature bits of an image that is written.
 *
 *      first write        unknown autoclear bits and that of bitmaps are cleared: this driver does not maintain them
 *      first allocation   dirty is set, durable: after a power cut the refcounts must be counted anew
 *      clean end          all is durable ──► dirty is cleared, durable
 */
import type { Disk } from '../../disk.js';
import type { Barrier } from '../../lookup/barrier.js';
import { writeAll } from '../../lookup/write-all.js';
import { AUTOCLEAR, HEADER_AT, type Header, INCOMPATIBLE } from '../format/header.js';

interface BitChange {
  /** incompatible bits */
  readonly set?: bigint;
  readonly clear?: bigint;
  readonly keepAutoclear?: bigint;
}

export class Session {
  readonly #image: Disk;
  readonly #barrier: Barrier;
  #compatible = 0n;
  #incompatible = 0n;
  #autoclear = 0n;
  /** an earlier server of this session was killed: clusters may be counted that nobody uses */
  #wasKilled = false;
  #hasBegunAllocating = false;
  /** the last change: the next one begins with the bits that it has written */
  #last: Promise<void> = Promise.resolve();
  #writing: Promise<void> | null = null;
  #allocating: Promise<void> | null = null;

  constructor(image: Disk, barrier: Barrier) {
    this.#image = image;
    this.#barrier = barrier;
  }

  /** Must be called before any other call. */
  load(header: Pick<Header, 'incompatible' | 'compatible' | 'autoclear'>): void {
    this.#compatible = header.compatible;
    this.#incompatible = header.incompatible;
    this.#autoclear = header.autoclear;
    this.#wasKilled = this.#has(INCOMPATIBLE.dirty);
    this.#hasBegunAllocating = false;
  }

  /** Whether the disk can be written without `begin`. */
  get hasBegun(): boolean {
    return (this.#autoclear & ~AUTOCLEAR.rawDataFile) === 0n;
  }

  /** Must have resolved before a byte of the disk is written. */
  async begin(): Promise<void> {
    if (this.hasBegun) return;
    this.#writing ??= this.#change({ keepAutoclear: AUTOCLEAR.rawDataFile }).finally(() => {
      this.#writing = null;
    });
    await this.#writing;
  }

  /** Must have resolved before a table is changed. */
  async beginAllocating(): Promise<void> {
    if (this.#hasBegunAllocating && this.hasBegun) return;
    this.#allocating ??= this.begin()
      .then(() => this.#beginAllocating())
      .finally(() => {
        this.#allocating = null;
      });
    await this.#allocating;
  }

  async #beginAllocating(): Promise<void> {
    if (!this.#has(INCOMPATIBLE.dirty)) await this.#change({ set: INCOMPATIBLE.dirty });
    // what the server before has removed from tables must be durable before a hole is made where it was
    else if (this.#wasKilled) await this.#barrier.pass();
    this.#hasBegunAllocating = true;
  }

  /** The image contradicts itself: nobody may write it before it was repaired. */
  async markCorrupt(): Promise<void> {
    if (!this.isCorrupt) await this.#change({ set: INCOMPATIBLE.corrupt });
  }

  get isCorrupt(): boolean {
    return this.#has(INCOMPATIBLE.corrupt);
  }

  /** @param isClean all refcounts are right */
  async end(isClean: boolean): Promise<void> {
    if (!this.#has(INCOMPATIBLE.dirty) || !isClean || this.#wasKilled) return;
    await this.#barrier.pass();
    await this.#change({ clear: INCOMPATIBLE.dirty });
  }

  #has(bit: bigint): boolean {
    return (this.#incompatible & bit) !== 0n;
  }

  /** Changes bits, durable. */
  #change({ set = 0n, clear = 0n, keepAutoclear = ~0n }: BitChange): Promise<void> {
    const changed = this.#last.then(async () => {
      const incompatible = (this.#incompatible | set) & ~clear;
      const autoclear = this.#autoclear & keepAutoclear;
      const bytes = Buffer.alloc(24);
      bytes.writeBigUInt64BE(incompatible, 0);
      bytes.writeBigUInt64BE(this.#compatible, 8);
      bytes.writeBigUInt64BE(autoclear, 16);
      await writeAll(this.#image, bytes, HEADER_AT.features);
      await this.#barrier.pass();
      this.#incompatible = incompatible;
      this.#autoclear = autoclear;
    });
    this.#last = changed.catch(() => {});
    return changed;
  }
}
