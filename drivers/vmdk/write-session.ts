/**
 * What the first and the last write of a session change in a sparse extent, so that others notice:
 *
 *      first write   another content id: images over this one refuse it; the byte "not closed" ──► flush
 *      clean end     flush ──► the byte is cleared ──► flush
 */
import { randomBytes } from 'node:crypto';
import type { Disk } from '../disk.js';
import { readUpTo } from '../formats/read.js';
import type { Barrier } from '../lookup/barrier.js';
import { writeAll } from '../lookup/write-all.js';
import { type Region, UNCLEAN_AT } from './sparse-header.js';

export interface WriteSessionParts {
  readonly image: Disk;
  readonly barrier: Barrier;
  /** null: the image has no content id */
  readonly cidPlace: Region | null;
}

export class WriteSession {
  readonly #parts: WriteSessionParts;
  #hasBegun = false;
  #isUnclean = false;
  #beginning: Promise<void> | null = null;

  constructor(parts: WriteSessionParts) {
    this.#parts = parts;
  }

  /** Must have resolved before any other call. */
  async load(): Promise<void> {
    this.#hasBegun = false;
    this.#isUnclean = (await readUpTo(this.#parts.image, UNCLEAN_AT, 1))[0] !== 0;
  }

  /** The image is not closed: by this server, by one that was killed, or by another program. */
  get isUnclean(): boolean {
    return this.#isUnclean;
  }

  get hasBegun(): boolean {
    return this.#hasBegun;
  }

  /** Must have resolved before a byte of the disk is written. */
  async begin(): Promise<void> {
    if (this.#hasBegun) return;
    this.#beginning ??= this.#begin().finally(() => {
      this.#beginning = null;
    });
    await this.#beginning;
  }

  async #begin(): Promise<void> {
    const { image, barrier, cidPlace } = this.#parts;
    if (cidPlace !== null) {
      const { offset, length } = cidPlace;
      const old = (await readUpTo(image, offset, length)).toString('latin1').toLowerCase();
      await writeAll(image, Buffer.from(otherCid(old), 'latin1'), offset);
    }
    this.#isUnclean = true;
    await writeAll(image, Buffer.of(1), UNCLEAN_AT);
    await barrier.pass();
    this.#hasBegun = true;
  }

  /** For a clean end: all tables are as they should be. */
  async end(): Promise<void> {
    if (!this.#isUnclean) return;
    const { image, barrier } = this.#parts;
    await barrier.pass();
    await writeAll(image, Buffer.of(0), UNCLEAN_AT);
    await barrier.pass();
    this.#isUnclean = false;
    this.#hasBegun = false;
  }
}

/** A content id with as many digits. The one of all ones says that there is no parent. */
function otherCid(old: string): string {
  for (;;) {
    const digits = randomBytes(4).toString('hex').slice(0, old.length);
    if (digits !== old && digits !== 'f'.repeat(old.length)) return digits;
  }
}
