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
 *  - PERMIT of each thread: whether it holds one. The main thread gives it away for a thread that hangs unforeseen.
 *  - REQUESTS of each thread counts up with each request: a thread at which it stands still is in the middle of one.
 *  - NODE and SEEN of each thread, and its PLACES: with these the main thread knows when no thread can still be using a
 *    window that it took away. NODE is the node whose request the thread serves. A thread sets NODE before it looks at
 *    VERSION, the main thread raises VERSION before it looks at NODE: one of the two sees the other. SEEN is the last
 *    version whose messages the thread has taken. A place holds the node of a read that was put off, which uses its
 *    window whatever the thread has seen. A thread fills a place before it changes NODE, the main thread looks at NODE
 *    before it looks at places. So a vbd whose disk hangs keeps nobody from taking another vbd's window away.
 */
import { setTimeout as delay } from 'node:timers/promises';

const VERSION = 0;
const PERMITS = 1;
const APART = 2;
const MAPPED = 3;
/** the words that all share have a cache line, and so have each thread's own, so that threads do not slow one another */
const LINE_WORDS = 16;
const NODE = 0;
const SEEN = 1;
const PERMIT = 2;
const REQUESTS = 3;
/** behind the line of a thread */
const PLACES = LINE_WORDS;
/** how many reads a thread may put off */
export const MOST_PUT_OFF = 32;
const WORDS_PER_THREAD = PLACES + MOST_PUT_OFF;

export type ThreadMemory = SharedArrayBuffer;

/** No thread may read before the main thread has given out permits. */
export function createThreadMemory(threads: number): ThreadMemory {
  return new SharedArrayBuffer((LINE_WORDS + threads * WORDS_PER_THREAD) * 4);
}

/** Where the words of a thread begin. */
function wordsOf(thread: number): number {
  return LINE_WORDS + thread * WORDS_PER_THREAD;
}

/** One thread's side. */
export class ThreadGate {
  readonly #words: Int32Array;
  readonly #own: number;
  readonly #places: Int32Array;
  #version = 0;
  #requests = 0;

  constructor(memory: ThreadMemory, thread: number) {
    this.#words = new Int32Array(memory);
    this.#own = wordsOf(thread);
    this.#places = this.#words.subarray(this.#own + PLACES, this.#own + PLACES + MOST_PUT_OFF);
  }

  /** Waits until the thread may read the device. @param takeMessages called when messages came in the meantime */
  takePermit(takeMessages: () => void): void {
    if (Atomics.load(this.#words, this.#own + PERMIT) === 1) return;
    for (;;) {
      const free = Atomics.load(this.#words, PERMITS);
      if (free > 0 && Atomics.compareExchange(this.#words, PERMITS, free, free - 1) === free) break;
      if (free > 0) continue;
      Atomics.wait(this.#words, PERMITS, free);
      if (this.#hasMoved()) takeMessages();
    }
    Atomics.store(this.#words, this.#own + PERMIT, 1);
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
    passPermitOn(this.#words, this.#own);
  }

  /**
   * A request for that node is there.
   * @returns whether messages wait; take them all before serving
   */
  enter(nodeId: number): boolean {
    this.#begin(nodeId);
    return this.#hasMoved();
  }

  #begin(nodeId: number): void {
    this.#requests = (this.#requests + 1) | 0;
    this.#words[this.#own + REQUESTS] = this.#requests;
    Atomics.store(this.#words, this.#own + NODE, nodeId);
  }

  #hasMoved(): boolean {
    const version = Atomics.load(this.#words, VERSION);
    if (version === this.#version) return false;
    this.#version = version;
    return true;
  }

  /** The messages were taken: the request that the thread serves uses nothing that they took away. */
  seen(): void {
    Atomics.store(this.#words, this.#own + SEEN, this.#version);
  }

  /** The thread serves no request any more. */
  leave(): void {
    Atomics.store(this.#words, this.#own + NODE, 0);
  }

  /** A read of the node is put off, and uses its window until `finished`. @returns its place; no more than MOST_PUT_OFF */
  putOff(nodeId: number): number {
    const place = this.#places.indexOf(0);
    Atomics.store(this.#places, place, nodeId);
    return place;
  }

  /** From here on the thread waits for the disk of the read at that place. */
  waitsFor(place: number): void {
    this.#begin(this.#places[place] as number);
  }

  /** The read at that place was answered. */
  finished(place: number): void {
    Atomics.store(this.#places, place, 0);
  }
}

/** A thread that does not get on with the request of a node. */
export interface Standstill {
  readonly thread: number;
  readonly nodeId: number;
}

function passPermitOn(words: Int32Array, own: number): void {
  if (Atomics.exchange(words, own + PERMIT, 0) === 0) return;
  Atomics.add(words, PERMITS, 1);
  Atomics.notify(words, PERMITS, 1);
}

/** The main thread's side. */
export class ThreadWatch {
  readonly #words: Int32Array;
  readonly #threads: number;
  /** how many requests each thread had begun at the last look, and at how many looks in a row it stood still there */
  readonly #seen: number[] = [];
  readonly #looks: number[] = [];

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

  /** Threads that have worked on one request since the look before this one, and did so then. */
  standstills(): Standstill[] {
    const found: Standstill[] = [];
    for (let thread = 0; thread < this.#threads; thread++) {
      const own = wordsOf(thread);
      const requests = Atomics.load(this.#words, own + REQUESTS);
      const nodeId = Atomics.load(this.#words, own + NODE);
      const isSame = nodeId !== 0 && this.#seen[thread] === requests;
      this.#looks[thread] = isSame ? (this.#looks[thread] ?? 0) + 1 : 0;
      this.#seen[thread] = requests;
      if ((this.#looks[thread] ?? 0) >= 2) found.push({ thread, nodeId });
    }
    return found;
  }

  /** Lets another thread read the device in the place of one that hangs. */
  takePermitFrom(thread: number): void {
    passPermitOn(this.#words, wordsOf(thread));
  }

  /** Resolves when no thread can be using the window of a node that messages up to `version` took away. */
  async passed(version: number, nodeId: number): Promise<void> {
    let sleepMs = 1;
    for (let thread = 0; thread < this.#threads; thread++) {
      while (this.#uses(thread, version, nodeId)) {
        await delay(sleepMs);
        // a disk that hangs is looked at for long
        sleepMs = Math.min(20, sleepMs * 1.05);
      }
    }
  }

  #uses(thread: number, version: number, nodeId: number): boolean {
    const own = wordsOf(thread);
    const isServing = Atomics.load(this.#words, own + NODE) === nodeId;
    if (isServing && ((version - Atomics.load(this.#words, own + SEEN)) | 0) > 0) return true;
    for (let place = 0; place < MOST_PUT_OFF; place++) {
      if (Atomics.load(this.#words, own + PLACES + place) === nodeId) return true;
    }
    return false;
  }
}
