/**
 * The feature bits of an image that is written.
 *
 *      first write        unknown autoclear bits and that of bitmaps are cleared: this driver does not maintain them
 *      first allocation   dirty is set, durable: after a power cut the refcounts must be counted anew
 *      clean end          all is durable ──► dirty is cleared, durable
 */
import type { Disk } from '../../disk.js';
import { AUTOCLEAR, type Header, INCOMPATIBLE } from '../format/header.js';
import type { Barrier } from './barrier.js';

const BITS_AT = 72;

export class Session {
  readonly #image: Disk;
  readonly #barrier: Barrier;
  #compatible = 0n;
  #incompatible = 0n;
  #autoclear = 0n;
  /** an earlier server of this session was killed: clusters may be counted that nobody uses */
  #wasKilled = false;
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
  }

  /** Whether the disk can be written without `begin`. */
  get hasBegun(): boolean {
    return (this.#autoclear & ~AUTOCLEAR.rawDataFile) === 0n;
  }

  /** Must have resolved before a byte of the disk is written. */
  async begin(): Promise<void> {
    if (this.hasBegun) return;
    this.#writing ??= this.#durably({ autoclear: this.#autoclear & AUTOCLEAR.rawDataFile }).finally(() => {
      this.#writing = null;
    });
    await this.#writing;
  }

  /** Must have resolved before a table is changed. */
  async beginAllocating(): Promise<void> {
    if (this.#has(INCOMPATIBLE.dirty) && this.hasBegun) return;
    this.#allocating ??= this.begin()
      .then(() => this.#durably({ incompatible: this.#incompatible | INCOMPATIBLE.dirty }))
      .finally(() => {
        this.#allocating = null;
      });
    await this.#allocating;
  }

  /** The image contradicts itself: nobody may write it before it was repaired. */
  async markCorrupt(): Promise<void> {
    await this.#durably({ incompatible: this.#incompatible | INCOMPATIBLE.corrupt });
  }

  /** @param isClean all refcounts are right */
  async end(isClean: boolean): Promise<void> {
    if (!this.#has(INCOMPATIBLE.dirty) || !isClean || this.#wasKilled) return;
    await this.#barrier.pass();
    await this.#durably({ incompatible: this.#incompatible & ~INCOMPATIBLE.dirty });
  }

  #has(bit: bigint): boolean {
    return (this.#incompatible & bit) !== 0n;
  }

  async #durably(bits: { incompatible?: bigint; autoclear?: bigint }): Promise<void> {
    const { incompatible = this.#incompatible, autoclear = this.#autoclear } = bits;
    const bytes = Buffer.alloc(24);
    bytes.writeBigUInt64BE(incompatible, 0);
    bytes.writeBigUInt64BE(this.#compatible, 8);
    bytes.writeBigUInt64BE(autoclear, 16);
    await this.#image.write(bytes, BITS_AT);
    await this.#barrier.pass();
    this.#incompatible = incompatible;
    this.#autoclear = autoclear;
  }
}
