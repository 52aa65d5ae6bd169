/**
 * Credit for filling holes of a ram image, asked for on the event loop: the same rules as for threads, which may wait
 * where they stand (mount/fuse/memory-growth.ts).
 */
import { setTimeout as delay } from 'node:timers/promises';
import { hasHole, pagesOf } from '../fuse/memory-growth.js';
import type { Ledger } from '../ledger.js';
import type { BusFile } from '../transport.js';

/** a keeper that does not answer is dead or stopped: then the limit is not known, and memory is not to be taken */
const PATIENCE_MS = 5_000;
const POLL_MS = 1;

/** Whether memory may be taken for writing a range of the file. @param ask has the keeper look at the ledger */
export async function mayFill(
  { disk: { window }, ledgerIndex }: BusFile,
  { ledger, ask }: { readonly ledger: Ledger; ask(): void },
  offset: number,
  length: number,
): Promise<boolean> {
  if (window === undefined || window.kind !== 'memory' || window.readOnly) return true;
  const inside = Math.min(length, window.size - offset);
  if (inside <= 0) return true;
  const pages = pagesOf(offset, inside);
  if (ledger.takeCredit(ledgerIndex, pages)) return true;
  while (hasHole(window, offset, inside)) {
    const question = ledger.askCredit(ledgerIndex, pages);
    ask();
    if (!(await isAnswered(ledger, ledgerIndex, question))) return false;
    if (ledger.takeCredit(ledgerIndex, pages)) return true;
    if (ledger.isCreditExhausted(ledgerIndex)) return !hasHole(window, offset, inside);
  }
  return true;
}

async function isAnswered(ledger: Ledger, ledgerIndex: number, question: number): Promise<boolean> {
  const deadline = performance.now() + PATIENCE_MS;
  while (!ledger.isCreditAnswered(ledgerIndex, question)) {
    if (performance.now() > deadline) return false;
    await delay(POLL_MS);
  }
  return true;
}
