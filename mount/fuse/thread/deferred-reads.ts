/**
 * Reads that wait for a disk without blocking a thread: the disk loads the missing bytes into the page cache, and the
 * thread serves the next request meanwhile. So a few threads keep as many reads under way as clients have sent.
 *
 *      read ──► all in memory (RWF_NOWAIT) ──► answered
 *           └─► not all ──► prefetch (WILLNEED) ──► put off ──► next request …
 *                                                      │
 *      no request is left, or the oldest read is late ◄┘
 *           └─► reads that are ready are answered. If none is ready, or the oldest is late, the thread gives its permit
 *               away, waits for the oldest, answers those that are ready by then, waits for the next …
 *
 * If the disk fails a prefetched read, the read that waits for it gets the error.
 */
import { type DeferredRead, NOT_SERVED } from './serve-window.js';
import { MOST_PUT_OFF } from './thread-control.js';

/** after this time the thread waits for the read, even if other requests come */
const LONGEST_MS = 1;

/** A read that was put off, with everything that its answer needs. */
export interface PutOff<W> extends DeferredRead {
  readonly uniqueId: number;
  readonly nodeId: number;
  /** the place that says that the read uses the window (thread-control.ts) */
  readonly place: number;
  readonly window: W;
  readonly begunMs: number;
}

/** Answers the read. If `mayWait` is false and bytes are missing, it answers nothing and returns NOT_SERVED. */
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

  /** Whether the oldest read is late. */
  isDue(nowMs: number): boolean {
    const oldest = this.#reads[0];
    return oldest !== undefined && nowMs - oldest.begunMs > LONGEST_MS;
  }

  /** Answers the reads that are ready; all reads if none is ready or one is late. Call if there is no other work. */
  settle(nowMs: number): void {
    const isDue = this.isDue(nowMs);
    const before = this.#reads.length;
    this.#finishSome();
    if (isDue || this.#reads.length === before) this.finishAll();
  }

  #finishSome(): void {
    this.#reads = this.#reads.filter((read) => this.#finish(read, false) === NOT_SERVED);
  }

  /** Answers the reads of a window that was taken away, and waits for the disk if needed. */
  finishOf(window: W): void {
    const own = this.#reads.filter((read) => read.window === window);
    if (own.length === 0) return;
    this.#reads = this.#reads.filter((read) => read.window !== window);
    this.#beforeWaiting();
    for (const read of own) this.#finish(read, true);
  }

  /** Answers all reads, and waits for the disk if needed. */
  finishAll(): void {
    if (this.#reads.length === 0) return;
    this.#beforeWaiting();
    for (;;) {
      const oldest = this.#reads.shift();
      if (oldest === undefined) return;
      this.#finish(oldest, true);
      // a disk completes reads in any order
      this.#finishSome();
    }
  }
}
