/**
 * Turns for writes to the same place. Writes to a mapped image (mapped-write.ts) bypass the lock of the file, which
 * otherwise prevents that two overlapping writes are mixed. So each thread announces in shared memory which pages it is
 * about to change, and a write that overlaps one under way waits until that one has ended.
 *
 *      per image    LOCK, taken for the few loads and stores of a look at all threads;
 *                   MAPPED, whether the mapping may be written; TAKEN, whether threads take turns: set before MAPPED
 *                   and cleared after it. The main thread sets and clears both.
 *      per thread   IMAGE (number + 1; 0: none), FIRST and LAST page; COPIES: whether it bypasses the lock of the file;
 *                   PLAIN: number + 1 of an image that it writes without a turn, because nobody takes turns
 *
 * The same bytes are the same image: vbds that share memory have one number, and so have a disk and its partitions. A
 * thread that waits has no range, and a thread that has a range does not wait: so there is no deadlock. If a thread
 * dies, so does its process, and this memory with it. Locks keep other processes away (copy-lease.ts).
 */
import { setTimeout as delay } from 'node:timers/promises';
import { PAGE_BYTES } from '../../../system/page.js';

/** the most images in memory that can be mapped at one time; further ones are not mapped */
export const MAX_IMAGES = 256;
/** the number of a window whose writes take no turns */
export const NO_TURNS = -1;
/** because a page number must be a positive 32-bit word */
export const MAX_TURN_BYTES = 2 ** 31 * 4096;

/** a cache line each */
const WORDS_PER_PLACE = 16;
const WAITING = 0;
const LOCK = 0;
const MAPPED = 1;
const TAKEN = 2;
const IMAGE = 0;
const FIRST = 1;
const LAST = 2;
const COPIES = 3;
const PLAIN = 4;

const SPINS = 200;
/** the most that a missed wake-up can cost */
const NAP_MS = 0.5;

export type TurnMemory = SharedArrayBuffer;

export function createTurnMemory(threads: number): TurnMemory {
  return new SharedArrayBuffer((1 + MAX_IMAGES + threads) * WORDS_PER_PLACE * 4);
}

const imagePlace = (image: number): number => (1 + image) * WORDS_PER_PLACE;
const threadPlace = (thread: number): number => (1 + MAX_IMAGES + thread) * WORDS_PER_PLACE;

function threadsOf(words: Int32Array): number {
  return words.length / WORDS_PER_PLACE - 1 - MAX_IMAGES;
}

/** One thread's side. */
export class WriteTurns {
  readonly #words: Int32Array;
  readonly #threads: number;
  readonly #thread: number;
  readonly #own: number;

  constructor(memory: TurnMemory, thread: number) {
    this.#words = new Int32Array(memory);
    this.#threads = threadsOf(this.#words);
    this.#thread = thread;
    this.#own = threadPlace(thread);
  }

  /**
   * Tries to take a range of an image, if threads take turns there. Pair with `end`.
   * @param from in the image's file, in bytes
   * @returns false if an overlapping write was under way: it has waited and has taken nothing, so call again
   */
  tryBegin(image: number, from: number, length: number): boolean {
    const words = this.#words;
    // this thread stores PLAIN before it loads TAKEN, and `allow` the other way round: so one of the two sees the other
    Atomics.store(words, this.#own + PLAIN, image + 1);
    if (Atomics.load(words, imagePlace(image) + TAKEN) === 0) return true;
    Atomics.store(words, this.#own + PLAIN, 0);
    const first = Math.floor(from / PAGE_BYTES);
    const last = Math.floor((from + length - 1) / PAGE_BYTES);
    const lock = imagePlace(image) + LOCK;
    this.#lock(lock);
    const other = this.#overlapping(image, first, last);
    if (other === -1) {
      words[this.#own + FIRST] = first;
      words[this.#own + LAST] = last;
      words[this.#own + COPIES] = 0;
      Atomics.store(words, this.#own + IMAGE, image + 1);
    }
    Atomics.store(words, lock, 0);
    if (other === -1) return true;
    this.#await(other, image);
    return false;
  }

  /** Whether the write of the range that was begun may bypass the lock of the file. */
  mayCopy(image: number): boolean {
    if (this.#words[this.#own + PLAIN] !== 0) return false;
    // this thread stores COPIES before it loads MAPPED, and `forbid` the other way round: so one of the two sees the
    // other
    Atomics.store(this.#words, this.#own + COPIES, 1);
    if (Atomics.load(this.#words, imagePlace(image) + MAPPED) === 1) return true;
    Atomics.store(this.#words, this.#own + COPIES, 0);
    return false;
  }

  end(): void {
    if (this.#words[this.#own + PLAIN] !== 0) {
      Atomics.store(this.#words, this.#own + PLAIN, 0);
      return;
    }
    Atomics.store(this.#words, this.#own + IMAGE, 0);
    if (Atomics.load(this.#words, WAITING) > 0) Atomics.notify(this.#words, this.#own + IMAGE);
  }

  #lock(lock: number): void {
    for (let tries = 1; Atomics.compareExchange(this.#words, lock, 0, 1) !== 0; tries++) {
      if (tries % SPINS === 0) Atomics.wait(this.#words, lock, 1, NAP_MS);
    }
  }

  /** The place of another thread's range that overlaps; −1 if there is none. Call with the image's lock. */
  #overlapping(image: number, first: number, last: number): number {
    const words = this.#words;
    for (let thread = 0; thread < this.#threads; thread++) {
      const place = threadPlace(thread);
      if (thread === this.#thread || Atomics.load(words, place + IMAGE) !== image + 1) continue;
      if ((words[place + FIRST] as number) <= last && first <= (words[place + LAST] as number)) return place;
    }
    return -1;
  }

  #await(place: number, image: number): void {
    const words = this.#words;
    for (let spins = 0; spins < SPINS; spins++) if (Atomics.load(words, place + IMAGE) !== image + 1) return;
    Atomics.add(words, WAITING, 1);
    Atomics.wait(words, place + IMAGE, image + 1, NAP_MS);
    Atomics.sub(words, WAITING, 1);
  }
}

/** The main thread's side. */
export class TurnWatch {
  readonly #words: Int32Array;
  readonly #threads: number;

  constructor(memory: TurnMemory) {
    this.#words = new Int32Array(memory);
    this.#threads = threadsOf(this.#words);
  }

  /** Lets threads write to the mapping. Resolves when they may: all threads take turns by then. */
  async allow(image: number): Promise<void> {
    Atomics.store(this.#words, imagePlace(image) + TAKEN, 1);
    for (let thread = 0; thread < this.#threads; thread++) {
      while (Atomics.load(this.#words, threadPlace(thread) + PLAIN) === image + 1) await delay(1);
    }
    Atomics.store(this.#words, imagePlace(image) + MAPPED, 1);
  }

  /** Makes threads use the lock of the file again. Resolves when no thread bypasses it any more. */
  async forbid(image: number): Promise<void> {
    Atomics.store(this.#words, imagePlace(image) + MAPPED, 0);
    for (let thread = 0; thread < this.#threads; thread++) while (this.#copies(thread, image)) await delay(1);
    Atomics.store(this.#words, imagePlace(image) + TAKEN, 0);
  }

  #copies(thread: number, image: number): boolean {
    const place = threadPlace(thread);
    const isWriting = Atomics.load(this.#words, place + IMAGE) === image + 1;
    return isWriting && Atomics.load(this.#words, place + COPIES) === 1;
  }
}
