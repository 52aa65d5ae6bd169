/**
 * What the main thread and its worker threads share: a few words of memory, because a thread blocked in read(2) never
 * returns to its event loop and takes no messages there.
 *
 *  - VERSION goes up with each message posted to the threads. A thread looks at it with each request and, when it
 *    moved, takes its messages (receiveMessageOnPort) before it serves. A parked thread is woken to take them, or they
 *    would pile up for as long as nobody needs it.
 *  - PERMITS: how many more threads may read the device. Threads that serve hold one. A thread that must wait for a
 *    disk gives its permit to a parked thread first, so that a slow disk never leaves the device unread: few threads
 *    when all is in memory (each more only costs switches), many when requests wait.
 *  - APART: whether each thread has a device of its own, whose flags are no other thread's.
 *  - MAPPED: whether a thread has written to mapped memory since the main thread asked (mapped-windows.ts).
 *  - BUSY and SEEN of each thread: with these the main thread knows when no thread can still be using what it took
 *    away. A thread sets BUSY before it looks at VERSION, the main thread raises VERSION before it looks at BUSY: one
 *    of the two sees the other.
 */

const VERSION = 0;
const PERMITS = 1;
const APART = 2;
const MAPPED = 3;
/** a cache line each, so that threads do not slow one another */
const WORDS_PER_THREAD = 16;
const BUSY = 0;
const SEEN = 1;

export type ThreadMemory = SharedArrayBuffer;

/** No thread may read before the main thread has given out permits. */
export function createThreadMemory(threads: number): ThreadMemory {
  return new SharedArrayBuffer((threads + 1) * WORDS_PER_THREAD * 4);
}

/** One thread's side. */
export class ThreadGate {
  readonly #words: Int32Array;
  readonly #own: number;
  #version = 0;
  #hasPermit = false;

  constructor(memory: ThreadMemory, thread: number) {
    this.#words = new Int32Array(memory);
    this.#own = (thread + 1) * WORDS_PER_THREAD;
  }

  /** Waits until the thread may read the device. @param takeMessages called when messages came in the meantime */
  takePermit(takeMessages: () => void): void {
    if (this.#hasPermit) return;
    for (;;) {
      const free = Atomics.load(this.#words, PERMITS);
      if (free > 0 && Atomics.compareExchange(this.#words, PERMITS, free, free - 1) === free) break;
      if (free > 0) continue;
      Atomics.wait(this.#words, PERMITS, free);
      if (this.#hasMoved()) takeMessages();
    }
    this.#hasPermit = true;
  }

  /** Whether the thread's device is no other's. Known once it has had a permit. */
  get ownsDevice(): boolean {
    return this.#words[APART] === 1;
  }

  /** Mapped memory was written. @returns whether it is the first time since the main thread asked: then tell it */
  noteMapped(): boolean {
    return this.#words[MAPPED] === 0 && Atomics.exchange(this.#words, MAPPED, 1) === 0;
  }

  /** Lets another thread read the device, because this one is about to wait for a disk. */
  givePermit(): void {
    if (!this.#hasPermit) return;
    this.#hasPermit = false;
    Atomics.add(this.#words, PERMITS, 1);
    Atomics.notify(this.#words, PERMITS, 1);
  }

  /**
   * A request is there.
   * @returns whether messages wait; take them all before serving
   */
  enter(): boolean {
    Atomics.store(this.#words, this.#own + BUSY, 1);
    return this.#hasMoved();
  }

  #hasMoved(): boolean {
    const version = Atomics.load(this.#words, VERSION);
    if (version === this.#version) return false;
    this.#version = version;
    return true;
  }

  /** The messages were taken: the thread uses nothing that they took away. */
  seen(): void {
    Atomics.store(this.#words, this.#own + SEEN, this.#version);
  }

  /** The thread uses nothing any more. */
  leave(): void {
    Atomics.store(this.#words, this.#own + BUSY, 0);
  }
}

/** The main thread's side. */
export class ThreadWatch {
  readonly #words: Int32Array;
  readonly #threads: number;

  constructor(memory: ThreadMemory, threads: number) {
    this.#words = new Int32Array(memory);
    this.#threads = threads;
  }

  /** Lets that many threads read the device at one time. @param apart whether each has a device of its own */
  permit(threads: number, apart = true): void {
    Atomics.store(this.#words, APART, apart ? 1 : 0);
    Atomics.add(this.#words, PERMITS, threads);
    Atomics.notify(this.#words, PERMITS, threads);
  }

  /** Whether mapped memory was written since this was asked last. */
  takeMapped(): boolean {
    return Atomics.exchange(this.#words, MAPPED, 0) === 1;
  }

  /** Call after messages were posted to all threads. */
  announce(): number {
    const version = Atomics.add(this.#words, VERSION, 1) + 1;
    Atomics.notify(this.#words, PERMITS);
    return version;
  }

  /** Resolves when no thread can be using what messages up to `version` took away. */
  async passed(version: number): Promise<void> {
    for (let thread = 0; thread < this.#threads; thread++) {
      const own = (thread + 1) * WORDS_PER_THREAD;
      while (
        Atomics.load(this.#words, own + BUSY) === 1 &&
        ((version - Atomics.load(this.#words, own + SEEN)) | 0) > 0
      ) {
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
    }
  }
}
