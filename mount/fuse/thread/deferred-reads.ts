/**
 * Reads that wait for a disk without a thread that waits: what they lack is on its way to the page cache, and the
 * thread goes on to the next request meanwhile. So a few threads keep as many reads under way as clients have asked for.
 *
 *      read ──► all in memory (RWF_NOWAIT) ──► answered
 *           └─► not all ──► the disk is told (WILLNEED) ──► put off ──► next request …
 *                                                              │
 *      no request is left, or the oldest has waited for long ◄─┘
 *           └─► those that have come in are answered; where none has, or the oldest is old, the thread gives its permit
 *               away, waits for the oldest, answers those that came in meanwhile, waits for the then oldest …
 *
 * A disk that fails a read says so to the one who waits for it.
 */
import { type DeferredRead, NOT_SERVED } from './serve-window.js';
import { MOST_PUT_OFF } from './thread-control.js';

/** a read that is put off for longer is waited for, whatever else there is to do */
const LONGEST_MS = 1;

/** A read that was put off, and what its answer takes. */
export interface PutOff<W> extends DeferredRead {
  readonly uniqueId: number;
  /** where it is told that the read uses the window (thread-control.ts) */
  readonly place: number;
  readonly window: W;
  readonly begunMs: number;
}

/** `mayWait` false: only if all bytes are there; then NOT_SERVED where they are not. */
export type Finish<W> = (read: PutOff<W>, mayWait: boolean) => number;

export class DeferredReads<W> {
  readonly #finish: Finish<W>;
  readonly #beforeWaiting: () => void;
  #reads: PutOff<W>[] = [];

  /** @param beforeWaiting called before the thread waits for a disk */
  constructor(finish: Finish<W>, beforeWaiting: () => void) {
    this.#finish = finish;
    this.#beforeWaiting = beforeWaiting;
  }

  get count(): number {
    return this.#reads.length;
  }

  get isFull(): boolean {
    return this.#reads.length >= MOST_PUT_OFF;
  }

  add(read: PutOff<W>): void {
    this.#reads.push(read);
  }

  /** Whether the oldest has waited long enough. */
  isDue(nowMs: number): boolean {
    const oldest = this.#reads[0];
    return oldest !== undefined && nowMs - oldest.begunMs > LONGEST_MS;
  }

  /** Answers those that have come in, or else all. Call where there is nothing better to do. */
  settle(nowMs: number): void {
    const isDue = this.isDue(nowMs);
    const before = this.#reads.length;
    this.#finishSome();
    if (isDue || this.#reads.length === before) this.finishAll();
  }

  #finishSome(): void {
    this.#reads = this.#reads.filter((read) => this.#finish(read, false) === NOT_SERVED);
  }

  /** Answers those of one window, and waits for the disk where it must: the window was taken away. */
  finishOf(window: W): void {
    const own = this.#reads.filter((read) => read.window === window);
    if (own.length === 0) return;
    this.#reads = this.#reads.filter((read) => read.window !== window);
    this.#beforeWaiting();
    for (const read of own) this.#finish(read, true);
  }

  /** Answers all, and waits for the disk where it must. */
  finishAll(): void {
    if (this.#reads.length === 0) return;
    this.#beforeWaiting();
    for (;;) {
      const oldest = this.#reads.shift();
      if (oldest === undefined) return;
      this.#finish(oldest, true);
      // a disk does them in an order of its own
      this.#finishSome();
    }
  }
}
