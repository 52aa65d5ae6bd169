/**
 * A write that fills a hole of a ram image takes memory, and that is bounded; but to ask before each write whether it
 * fills a hole would cost a system call for each page. So a file has a credit: pages that may be written without
 * asking. A write takes its pages from it, holes or not: one atomic subtraction (mount/ledger/ledger.ts).
 *
 *      enough credit ──► write
 *      not enough ──► no hole in the range ──► write; more credit is asked for, so that the next need not look,
 *                 │                            unless the whole memory has none
 *                 └─► a hole ──► ask and wait ──► enough ──► write
 *                                                        └─► the limit is reached ──► ENOSPC
 *
 * The keeper knows what all images hold, and gives no more than the limit leaves, and beyond what is needed only half of
 * that (mount/ram/credit.ts). What was given for writes that filled no hole comes back when it looks again. Each
 * question is answered within a millisecond or two, once for 64 MiB.
 */
import { fstatSync } from 'node:fs';
import type { Window } from '../../drivers/driver.js';
import { lseek, SEEK_DATA, SEEK_HOLE } from '../../system/libc.js';
import { PAGE_BYTES } from '../../system/page.js';
import type { Ledger } from '../ledger/ledger.js';

/** somebody answers within seconds (mount/server/memory-questions.ts): a server that does not for so long is replaced before */
export const PATIENCE_MS = 60_000;
const SLEEP_MS = 0.2;
/** of a request for more that nobody waits for */
const ASK_INTERVAL_MS = 50;
/** from here on a look at the whole memory is tried first; it costs as much as some pages do */
const MANY_PAGES = 8;
/** a range is looked at page by page up to here; beyond, one search is cheaper, though it may go far */
const MAX_LOOKS = 256;

export interface GrowthContext {
  readonly ledger: Ledger;
  /** has somebody look at the ledger */
  ask(): void;
  /** called before the thread waits */
  beforeWaiting(): void;
}

export class MemoryGrowth {
  readonly #context: GrowthContext;
  readonly #sleeping = new Int32Array(new SharedArrayBuffer(4));
  #askedAtMs = Number.NEGATIVE_INFINITY;

  constructor(context: GrowthContext) {
    this.#context = context;
  }

  /** Whether a range that lacks credit may be written all the same, or after the keeper was asked. */
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
      // else another thread took what was given: ask again, unless there is nothing more to give
      if (ledger.isCreditExhausted(ledgerIndex)) return !hasHole(window, offset, inside);
    }
  }

  /** For no pages in particular: what can be had. */
  #askInPassing({ fd }: Window, ledgerIndex: number): void {
    const { ledger, ask } = this.#context;
    const nowMs = performance.now();
    // a question that somebody waits for must not be made one that nobody waits for
    if (nowMs - this.#askedAtMs < ASK_INTERVAL_MS || ledger.creditQuestion(ledgerIndex) !== null) return;
    this.#askedAtMs = nowMs;
    // there is nothing that credit could be spent on
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

/** Whether a memory has no hole anywhere. Where huge pages count for more than its size, that is not known: false. */
function isFull(fd: number): boolean {
  const { size, blocks } = fstatSync(fd);
  return blocks * 512 === Math.ceil(size / PAGE_BYTES) * PAGE_BYTES;
}

/** Whether writing a range inside the window takes memory. */
export function hasHole({ fd, start }: Window, offset: number, length: number): boolean {
  const from = start + offset - ((start + offset) % PAGE_BYTES);
  const end = start + offset + length;
  const pages = pagesOf(offset, length);
  if (pages >= MANY_PAGES && isFull(fd)) return false;
  if (pages > MAX_LOOKS) return lseek(fd, from, SEEK_HOLE) < end;
  for (let at = from; at < end; at += PAGE_BYTES) {
    // the answer for data is at hand, wherever the next hole is
    if (lseek(fd, at, SEEK_DATA) !== at) return true;
  }
  return false;
}
