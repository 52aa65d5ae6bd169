/**
 * The few words of memory that the main thread and its worker threads share. They are needed because a thread blocked
 * in read(2) never returns to its event loop, and gets no messages there.
 *
 *  - VERSION goes up with each message posted to the threads. A thread looks at it with each request. If it has
 *    changed, the thread takes its messages (receiveMessageOnPort) before it serves. Parked threads are woken to take
 *    their messages, which would pile up otherwise.
 *  - PERMITS: how many more threads may read the device. Threads that serve have one. A thread that must wait for a
 *    disk first gives its permit to a parked thread, so that a slow disk never leaves the device unread. Thus few
 *    threads run when all is in memory (more would only cost switches), and many when requests wait.
 *  - APART: whether each thread has a device of its own, whose flags do not affect other threads.
 *  - MAPPED: whether a thread has written to mapped memory since the main thread last asked (mapped-windows.ts).
 *  - PERMIT of each thread: whether it has one. If a thread hangs, the main thread gives its permit to another.
 *  - OWN_READS: whether the main thread reads the device itself while requests come that only it serves (own-reads.ts).
 *    Then a thread that hands on such a request lends its permit, and waits. LENT counts these permits, and TURNS the
 *    reads of the main thread: if they stop, a thread takes its permit back.
 *  - WANTED: with how many free permits a thread asks for another thread. It gives its permit away, nobody waits for one, and so many
 *    are free: then nobody reads the device. 0: it does not ask. It asks once, and the main thread sets this again.
 *  - WAITING of each thread: whether it waits for a permit, or takes messages meanwhile.
 *  - OFFER of each thread: the number of a request that threads serve, that the main thread has read and posted to this
 *    thread, which waits. The one that sets OFFER back to 0 serves the request. A thread that has its permit sets WAITING
 *    to 0 and then looks at VERSION, and the main thread raises VERSION before it looks at WAITING: so one of the two sees
 *    the other.
 *  - REQUESTS of each thread counts its requests: if it does not change, the thread is in the middle of a request.
 *  - NODE and SEEN of each thread, and its PLACES: they tell the main thread when no thread can still be using a
 *    window that was taken away. NODE is the node whose request the thread serves. A thread sets NODE before it looks
 *    at VERSION, and the main thread raises VERSION before it looks at NODE: so one of the two sees the other. SEEN is
 *    the last version whose messages the thread has taken. A place contains the node of a read that was put off; such a
 *    read uses its window whatever messages the thread has taken. A thread fills a place before it changes NODE, and
 *    the main thread looks at NODE before it looks at places. So a vbd whose disk hangs does not delay taking away the
 *    window of another vbd.
 */
import { setTimeout as delay } from 'node:timers/promises';

const VERSION = 0;
const PERMITS = 1;
const APART = 2;
const MAPPED = 3;
const OWN_READS = 4;
const LENT = 5;
const TURNS = 6;
const WANTED = 7;
/** the shared words have a cache line, and so have each thread's words, so that threads do not slow one another */
const LINE_WORDS = 16;
const NODE = 0;
const SEEN = 1;
const PERMIT = 2;
const REQUESTS = 3;
const OFFER = 4;
const WAITING = 5;
/** after the cache line of a thread */
const PLACES = LINE_WORDS;
/** the most reads that a thread may put off */
export const MOST_PUT_OFF = 32;
const WORDS_PER_THREAD = PLACES + 2 * MOST_PUT_OFF;
/** after the places: how often each was filled */
const FILLINGS = PLACES + MOST_PUT_OFF;

/** offers are numbered from 1 to this, and then again */
const MOST_OFFERS = 2 ** 30;
/** a thread takes back a permit that it lent if the main thread has not read for so long */
const STANDSTILL_MS = 10;

export type ThreadMemory = SharedArrayBuffer;

/** Creates the memory, without permits: no thread may read before the main thread calls `permit`. */
export function createThreadMemory(threads: number): ThreadMemory {
  return new SharedArrayBuffer((LINE_WORDS + threads * WORDS_PER_THREAD) * 4);
}

/** The index of a thread's first word. */
function wordsOf(thread: number): number {
  return LINE_WORDS + thread * WORDS_PER_THREAD;
}

/** One thread's side. */
export class ThreadGate {
  readonly #words: Int32Array;
  readonly #own: number;
  readonly #places: Int32Array;
  readonly #askForThread: () => void;
  #version = 0;
  #requests = 0;

  /** @param askForThread called when no thread is left that could read the device */
  constructor(memory: ThreadMemory, thread: number, askForThread = (): void => {}) {
    this.#askForThread = askForThread;
    this.#words = new Int32Array(memory);
    this.#own = wordsOf(thread);
    this.#places = this.#words.subarray(this.#own + PLACES, this.#own + PLACES + MOST_PUT_OFF);
  }

  /** Waits until the thread may read the device. @param takeMessages called when messages come meanwhile */
  takePermit(takeMessages: () => void): void {
    // a message may be a request, and serving it may have given the permit away
    while (Atomics.load(this.#words, this.#own + PERMIT) === 0) {
      Atomics.store(this.#words, this.#own + WAITING, 1);
      this.#awaitOne(takeMessages);
      Atomics.store(this.#words, this.#own + PERMIT, 1);
      Atomics.store(this.#words, this.#own + WAITING, 0);
      if (this.#hasMoved()) takeMessages();
    }
  }

  #awaitOne(takeMessages: () => void): void {
    for (;;) {
      if (this.#hasMoved()) takeMessages();
      const free = Atomics.load(this.#words, PERMITS);
      if (free > 0 && Atomics.compareExchange(this.#words, PERMITS, free, free - 1) === free) return;
      if (free > 0) continue;
      if (this.#awaitPermits(free)) return;
    }
  }

  /** Takes a request that the main thread has offered. @returns false if the main thread serves it */
  takeOffer(number: number): boolean {
    return Atomics.compareExchange(this.#words, this.#own + OFFER, number, 0) === number;
  }

  /** @returns whether a permit that was lent is taken back, because the main thread does not read */
  #awaitPermits(free: number): boolean {
    const turns = Atomics.load(this.#words, TURNS);
    const isLent = Atomics.load(this.#words, LENT) > 0;
    if (Atomics.wait(this.#words, PERMITS, free, isLent ? STANDSTILL_MS : Infinity) !== 'timed-out') return false;
    if (Atomics.load(this.#words, TURNS) !== turns) return false;
    const lent = Atomics.load(this.#words, LENT);
    return lent > 0 && Atomics.compareExchange(this.#words, LENT, lent, lent - 1) === lent;
  }

  /**
   * Lends the permit to the main thread if that reads the device itself. Call before a request is handed on.
   * @returns whether it is lent
   */
  lendPermit(): boolean {
    if (Atomics.load(this.#words, OWN_READS) === 0) return false;
    if (Atomics.exchange(this.#words, this.#own + PERMIT, 0) === 0) return false;
    Atomics.add(this.#words, LENT, 1);
    return true;
  }

  /** Whether the thread has a device of its own. Known after its first permit. */
  get ownsDevice(): boolean {
    return this.#words[APART] === 1;
  }

  /** Notes a write to mapped memory. @returns whether it is the first since the main thread asked: then report it */
  noteMapped(): boolean {
    return this.#words[MAPPED] === 0 && Atomics.exchange(this.#words, MAPPED, 1) === 0;
  }

  /** Lets another thread read the device, because this one is about to wait for a disk. */
  givePermit(): void {
    const free = passPermitOn(this.#words, this.#own);
    if (free === 0) return;
    const wanted = Atomics.load(this.#words, WANTED);
    if (wanted === 0 || free < wanted) return;
    if (Atomics.compareExchange(this.#words, WANTED, wanted, 0) === wanted) this.#askForThread();
  }

  /**
   * Begins a request for that node.
   * @returns whether messages wait: take them all before serving
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

  /** Call when the messages were taken: the thread now uses no window that they took away. */
  seen(): void {
    Atomics.store(this.#words, this.#own + SEEN, this.#version);
  }

  /** Call when the thread serves no request any more. */
  leave(): void {
    Atomics.store(this.#words, this.#own + NODE, 0);
  }

  /**
   * Puts off a read of the node, at most MOST_PUT_OFF reads. The read uses its window until `finished`.
   * @returns its place
   */
  putOff(nodeId: number): number {
    const place = this.#places.indexOf(0);
    this.#words[this.#own + FILLINGS + place] = ((this.#words[this.#own + FILLINGS + place] as number) + 1) | 0;
    Atomics.store(this.#places, place, nodeId);
    return place;
  }

  /** Call before the thread waits for the disk of the read at that place. */
  waitsFor(place: number): void {
    this.#begin(this.#places[place] as number);
  }

  /** Call when the read at that place was answered. */
  finished(place: number): void {
    Atomics.store(this.#places, place, 0);
  }
}

/** A thread that makes no progress with a request of a node. */
export interface Standstill {
  readonly thread: number;
  readonly nodeId: number;
}

/** @returns how many permits are free and nobody waits for one; 0 if there was none to pass on, or somebody waits */
function passPermitOn(words: Int32Array, own: number): number {
  if (Atomics.exchange(words, own + PERMIT, 0) === 0) return 0;
  const free = Atomics.add(words, PERMITS, 1) + 1;
  return Atomics.notify(words, PERMITS, 1) === 0 ? free : 0;
}

/** Waits until every function has returned false once. */
async function untilNone(lasting: readonly (() => boolean)[]): Promise<void> {
  let sleepMs = 1;
  for (const lasts of lasting) {
    while (lasts()) {
      await delay(sleepMs);
      // longer and longer pauses, because a disk that hangs takes long
      sleepMs = Math.min(20, sleepMs * 1.05);
    }
  }
}

/** The main thread's side. */
export class ThreadWatch {
  readonly #words: Int32Array;
  readonly #threads: number;
  /** the requests that each thread had begun at the last look, and the looks in a row without a change */
  readonly #seen: number[] = [];
  readonly #looks: number[] = [];
  #lastOffer = 0;

  constructor(memory: ThreadMemory, threads: number) {
    this.#words = new Int32Array(memory);
    this.#threads = threads;
  }

  /** Lets that many threads read the device at one time. @param apart whether each thread has a device of its own */
  permit(threads: number, apart = true): void {
    Atomics.store(this.#words, APART, apart ? 1 : 0);
    Atomics.add(this.#words, PERMITS, threads);
    Atomics.notify(this.#words, PERMITS, threads);
  }

  /** Lets a thread ask once for another thread. @param permits how many there are */
  letAsk(permits: number): void {
    Atomics.store(this.#words, WANTED, permits);
  }

  /** Whether the main thread reads the device itself: threads then lend their permits with requests that they hand on. */
  set readsItself(reads: boolean) {
    Atomics.store(this.#words, OWN_READS, reads ? 1 : 0);
  }

  /** Tells the threads that the main thread is about to read. @returns whether it has permits to read */
  beginRead(): boolean {
    Atomics.add(this.#words, TURNS, 1);
    return Atomics.load(this.#words, LENT) > 0;
  }

  /**
   * Offers a request to a thread that waits for a permit.
   * @param post posts it to the thread, with its number
   * @returns whether the thread serves it, perhaps only after another announcement; false: the caller must serve it
   */
  offer(thread: number, post: (number: number) => void): boolean {
    const own = wordsOf(thread);
    if (this.isOffered(thread) || !this.#isWaiting(own)) return false;
    // an offer that was taken back is still on its way to the thread, and must not be mistaken for this one
    this.#lastOffer = (this.#lastOffer % MOST_OFFERS) + 1;
    const number = this.#lastOffer;
    Atomics.store(this.#words, own + OFFER, number);
    post(number);
    this.announce();
    if (Atomics.load(this.#words, own + WAITING) === 1) return true;
    return Atomics.compareExchange(this.#words, own + OFFER, number, 0) === 0;
  }

  /** Whether a thread has not taken its offer yet: it was about to wait, and has not seen the announcement. */
  isOffered(thread: number): boolean {
    return Atomics.load(this.#words, wordsOf(thread) + OFFER) !== 0;
  }

  /** Whether a thread waits for a permit and serves nothing: else it may be blocked in read(2), or wait for a disk. */
  #isWaiting(own: number): boolean {
    return Atomics.load(this.#words, own + WAITING) === 1 && Atomics.load(this.#words, own + NODE) === 0;
  }

  /** Gives the permits back that threads have lent. */
  giveBack(): void {
    const lent = Atomics.exchange(this.#words, LENT, 0);
    if (lent === 0) return;
    Atomics.add(this.#words, PERMITS, lent);
    Atomics.notify(this.#words, PERMITS, lent);
  }

  /** Whether mapped memory was written since the last call. */
  takeMapped(): boolean {
    return Atomics.exchange(this.#words, MAPPED, 0) === 1;
  }

  /** Call after messages were posted to all threads. */
  announce(): number {
    const version = Atomics.add(this.#words, VERSION, 1) + 1;
    Atomics.notify(this.#words, PERMITS);
    return version;
  }

  /** The threads that have been in the same request for the last two looks. */
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

  /** Gives the permit of a thread that hangs to another thread. */
  takePermitFrom(thread: number): void {
    passPermitOn(this.#words, wordsOf(thread));
  }

  /** Resolves when no thread can still be using the window of a node that messages up to `version` took away. */
  async awaitUnused(version: number, nodeId: number): Promise<void> {
    const threads = Array.from({ length: this.#threads }, (_, thread) => thread);
    await untilNone(threads.map((thread) => () => this.#uses(thread, version, nodeId)));
  }

  /**
   * Resolves when no thread still serves a request of these nodes that it began before the call, or has such a read put
   * off. For entries of a map: the caller has changed them before, and a thread sets NODE before it looks at entries. So
   * a request that begins later sees the change.
   */
  async awaitPast(nodeIds: ReadonlySet<number>): Promise<void> {
    const requests: (() => boolean)[] = [];
    for (let thread = 0; thread < this.#threads; thread++) {
      const own = wordsOf(thread);
      if (!nodeIds.has(Atomics.load(this.#words, own + NODE))) continue;
      const begun = Atomics.load(this.#words, own + REQUESTS);
      requests.push(() => this.#holds(own + NODE, nodeIds) && this.#words[own + REQUESTS] === begun);
    }
    await untilNone(requests);
    const reads: (() => boolean)[] = [];
    for (let thread = 0; thread < this.#threads; thread++) {
      for (let place = 0; place < MOST_PUT_OFF; place++) {
        const at = wordsOf(thread) + PLACES + place;
        if (!this.#holds(at, nodeIds)) continue;
        const filling = at + MOST_PUT_OFF;
        const count = Atomics.load(this.#words, filling);
        reads.push(() => this.#holds(at, nodeIds) && Atomics.load(this.#words, filling) === count);
      }
    }
    await untilNone(reads);
  }

  #holds(at: number, nodeIds: ReadonlySet<number>): boolean {
    return nodeIds.has(Atomics.load(this.#words, at));
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
