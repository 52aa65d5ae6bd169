/**
 * Enforces the ram limit in threads. A write that fills a hole of a ram image takes memory, and memory is limited. To
 * look for holes before each write would cost a system call per page. So each file has a credit: the number of pages
 * that may be written without asking. Every write subtracts its pages, with or without holes: one atomic subtraction
 * (mount/ledger/ledger.ts).
 *
 *      enough credit ──► write
 *      not enough ──► no hole in the range ──► write, and ask for credit so that the next write need not look
 *                 │                            (unless the whole ram image has no hole)
 *                 └─► a hole ──► ask and wait ──► enough ──► write
 *                                                        └─► the limit is reached ──► ENOSPC
 *
 * The keeper knows the use of all images. It grants no more than the limit allows, and of the part that is not needed
 * at once at most half of the free space (mount/ram/credit.ts). Credit spent by writes that filled no hole is available
 * again when the keeper measures the images the next time. A question is answered within one or two milliseconds, once
 * per 64 MiB.
 */
import { fstatSync } from 'node:fs';
import type { Window } from '../../drivers/driver.js';
import { lseek, SEEK_DATA, SEEK_HOLE } from '../../system/libc.js';
import { PAGE_BYTES } from '../../system/page.js';
import type { Ledger } from '../ledger/ledger.js';

/**
 * an answer takes seconds at most (mount/server/memory-questions.ts): a server without one is replaced before this time
 */
export const PATIENCE_MS = 60_000;
const SLEEP_MS = 0.2;
/** between requests for credit that no thread waits for */
const ASK_INTERVAL_MS = 50;
/**
 * from this many pages on, first check whether the whole image has a hole: that costs as much as checking a few pages
 */
const MANY_PAGES = 8;
/** up to this many pages, a range is checked page by page; for more, one search is cheaper, though it may go far */
const MAX_LOOKS = 256;

export interface GrowthContext {
  readonly ledger: Ledger;
  /** makes the keeper read the ledger */
  ask(): void;
  /** called before the thread waits */
  beforeWaiting(): void;
}

export class RamGrowth {
  readonly #context: GrowthContext;
  readonly #sleeping = new Int32Array(new SharedArrayBuffer(4));
  readonly #nowMs: () => number;
  #askedAtMs = Number.NEGATIVE_INFINITY;

  /** @param nowMs the clock, for tests */
  constructor(context: GrowthContext, nowMs: () => number = () => performance.now()) {
    this.#context = context;
    this.#nowMs = nowMs;
  }

  /** Whether a range without enough credit may be written: because it has no hole, or after the keeper gave credit. */
  isAllowed(window: Window, ledgerIndex: number, offset: number, length: number): boolean {
    const { ledger } = this.#context;
    const inside = Math.min(length, window.size - offset);
    // nothing will be written
    if (inside <= 0) return true;
    const pages = pagesOf(offset, inside);
    if (!hasHole(window, offset, inside)) {
      this.#askInPassing(window, ledgerIndex);
      return true;
    }
    this.#context.beforeWaiting();
    for (;;) {
      const question = ledger.askCredit(ledgerIndex, pages);
      this.#context.ask();
      if (!this.#awaitAnswer(ledgerIndex, question)) return false;
      if (ledger.takeCredit(ledgerIndex, pages)) return true;
      // another thread took the credit: ask again, unless no more can be had
      if (ledger.isCreditExhausted(ledgerIndex)) return !hasHole(window, offset, inside);
    }
  }

  /** Asks for as much credit as can be had, without waiting. */
  #askInPassing({ fd }: Window, ledgerIndex: number): void {
    const { ledger, ask } = this.#context;
    const nowMs = this.#nowMs();
    // do not overwrite a question that another thread waits for
    if (nowMs - this.#askedAtMs < ASK_INTERVAL_MS || ledger.creditQuestion(ledgerIndex) !== null) return;
    this.#askedAtMs = nowMs;
    // no hole is left, so no credit is needed
    if (isFull(fd)) return;
    ledger.askCredit(ledgerIndex, 0);
    ask();
  }

  #awaitAnswer(ledgerIndex: number, question: number): boolean {
    const deadline = performance.now() + PATIENCE_MS;
    while (!this.#context.ledger.isCreditAnswered(ledgerIndex, question)) {
      if (performance.now() > deadline) return false;
      Atomics.wait(this.#sleeping, 0, 0, SLEEP_MS);
    }
    return true;
  }
}

/** How many pages a range touches. */
export function pagesOf(offset: number, length: number): number {
  return Math.ceil(((offset % PAGE_BYTES) + length) / PAGE_BYTES);
}

/** Whether a ram image has no hole at all. False if that is not known: huge pages can make blocks exceed the size. */
function isFull(fd: number): boolean {
  const { size, blocks } = fstatSync(fd);
  return blocks * 512 === Math.ceil(size / PAGE_BYTES) * PAGE_BYTES;
}

/** Whether writing a range inside the window takes memory. */
export function hasHole({ fd, start }: Pick<Window, 'fd' | 'start'>, offset: number, length: number): boolean {
  const from = start + offset - ((start + offset) % PAGE_BYTES);
  const end = start + offset + length;
  const pages = pagesOf(offset, length);
  if (pages >= MANY_PAGES && isFull(fd)) return false;
  if (pages > MAX_LOOKS) return lseek(fd, from, SEEK_HOLE) < end;
  for (let at = from; at < end; at += PAGE_BYTES) {
    // SEEK_DATA at data returns at once, however far the next hole is
    if (lseek(fd, at, SEEK_DATA) !== at) return true;
  }
  return false;
}
