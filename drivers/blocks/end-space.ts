/**
 * Space for new blocks at the end of an image. It is taken in steps that are longer than a block:
 *
 *      … the last block ][ space that was got ready: zeros, durable       ][ a trailer, for formats that have one
 *                        └─► take(): the space of one block
 *
 * What is ready and was not taken stays a hole in the image, and the next server takes it.
 */
import type { Disk } from '../disk.js';
import { deviceFull } from '../formats/faults.js';
import type { Barrier } from '../lookup/barrier.js';

/** how much is got ready at one time; at least one block */
const STEP_BYTES = 16 << 20;

export interface EndSpaceOptions {
  readonly image: Disk;
  readonly barrier: Barrier;
  /** bytes from the space of one block to that of the next one */
  readonly strideBytes: number;
  /** bytes of the format at the end of the image; default: 0 */
  readonly trailerBytes?: number;
  /**
   * Called before the space up to `end` is made zeros. What it writes is flushed.
   * @param isLonger the image was made to end there, with its trailer
   */
  announce?(end: number, isLonger: boolean): Promise<void>;
}

export class EndSpace {
  readonly #options: EndSpaceOptions;
  #next = 0;
  /** up to here, space is ready */
  #ready = 0;
  /** space that was taken, and given back */
  readonly #returned: number[] = [];
  #lastWork: Promise<void> = Promise.resolve();

  constructor(options: EndSpaceOptions) {
    this.#options = options;
  }

  /** @param end nothing of the image is behind it but the trailer */
  start(end: number): void {
    this.#next = end;
    this.#ready = end;
  }

  /** @returns the first byte of the space of a block @throws FusetapError NO_SPACE */
  async take(): Promise<number> {
    const { strideBytes } = this.#options;
    for (;;) {
      const returned = this.#returned.pop();
      if (returned !== undefined) return await this.#clean(returned);
      if (this.#next + strideBytes <= this.#ready) {
        const taken = this.#next;
        this.#next += strideBytes;
        return taken;
      }
      await this.#inTurn(async () => {
        if (this.#next + strideBytes > this.#ready) await this.#getReady();
      });
    }
  }

  /** Takes back space that nothing refers to, although it may have been written. */
  giveBack(start: number): void {
    this.#returned.push(start);
  }

  async #clean(start: number): Promise<number> {
    const { image, barrier, strideBytes } = this.#options;
    try {
      await image.zero(start, strideBytes, { punch: true });
      await barrier.pass();
      return start;
    } catch (error) {
      this.#returned.push(start);
      throw error;
    }
  }

  async #getReady(): Promise<void> {
    const { image, barrier, strideBytes, trailerBytes = 0, announce } = this.#options;
    const old = image.size;
    const count = Math.max(1, Math.floor(STEP_BYTES / strideBytes));
    const limit = image.growth === undefined ? old - trailerBytes : Number.POSITIVE_INFINITY;
    const fit = Math.min(count, Math.floor((limit - this.#next) / strideBytes));
    if (fit < 1) throw deviceFull();
    const from = this.#next;
    const to = from + fit * strideBytes;
    // also if it is as long: a server may have died, or failed, before it wrote the trailer
    const isLonger = image.growth !== undefined && to + trailerBytes >= old;
    if (isLonger) await image.growth?.grow(to + trailerBytes);
    await announce?.(to, isLonger);
    await barrier.pass();
    // what a killed server left here, and the old trailer
    const dirty = Math.min(to, old) - from;
    if (dirty > 0) {
      await image.zero(from, dirty, { punch: true });
      await barrier.pass();
    }
    this.#ready = to;
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const own = this.#lastWork.then(work);
    this.#lastWork = own.catch(() => {});
    return own;
  }
}
