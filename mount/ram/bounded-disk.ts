/**
 * Enforces the ram limit for writes served on the event loop: behind delay or error filters, after a pause, and with
 * fuse-native. The rules are the same as for threads, which may block while they wait (mount/ram/growth.ts).
 *
 * This disk is directly above the driver's disk, below all filters: only there the bytes of the ram image that a write
 * changes are known, because filters change offsets and sizes.
 */
import type { RawDisk, Window } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { wrapDisk } from '../../drivers/filters/wrap-disk.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { E } from '../../system/libc.js';
import { until } from '../../system/until.js';
import type { Ledger } from '../ledger/ledger.js';
import { hasHole, PATIENCE_MS, pagesOf } from './growth.js';

const POLL_MS = 1;

/** Where credit for more memory is requested. */
export interface CreditSource {
  readonly ledger: Ledger;
  readonly ledgerIndex: number;
  /** makes the keeper read the ledger */
  ask(): void;
}

/** A disk that keeps to the ram limit. A disk that is not a range of memory is returned unchanged. */
export function limitDisk(raw: RawDisk, room: CreditSource): RawDisk {
  const window = windowOf(raw);
  if (window?.kind !== 'memory' || window.readOnly || raw.write === undefined) return raw;
  return wrapDisk(raw, {
    async write(buffer, offset, options) {
      if (!(await mayFill(window, room, offset, buffer.byteLength))) throw isFull(offset);
      await raw.write?.(buffer, offset, options);
    },
  });
}

/**
 * What a driver with memory of its own calls before it fills a range of this memory: see `mayFill` of OpenContext.
 * @param sizeBytes of the memory
 */
export function fillGuard(
  memoryFd: number,
  sizeBytes: number,
  room: CreditSource,
): (offset: number, length: number) => Promise<void> {
  const memory = { fd: memoryFd, start: 0 };
  return async (offset, length) => {
    const inside = Math.min(length, sizeBytes - offset);
    if (inside > 0 && !(await mayFill(memory, room, offset, inside))) throw isFull();
  };
}

type Range = Pick<Window, 'fd' | 'start'>;

async function mayFill(window: Range, room: CreditSource, offset: number, length: number): Promise<boolean> {
  const { ledger, ledgerIndex } = room;
  const pages = pagesOf(offset, length);
  if (ledger.takeCredit(ledgerIndex, pages)) return true;
  while (hasHole(window, offset, length)) {
    const question = ledger.askCredit(ledgerIndex, pages);
    room.ask();
    if (!(await isAnswered(room, question))) return false;
    if (ledger.takeCredit(ledgerIndex, pages)) return true;
    if (ledger.isCreditExhausted(ledgerIndex)) return !hasHole(window, offset, length);
  }
  return true;
}

function isAnswered({ ledger, ledgerIndex }: CreditSource, question: number): Promise<boolean> {
  const isSo = (): boolean => ledger.isCreditAnswered(ledgerIndex, question);
  return until(isSo, { timeoutMs: PATIENCE_MS, everyMs: POLL_MS });
}

/** @param offset in the disk; if omitted, disk.ts adds that of the request */
function isFull(offset?: number): FusetapError {
  const where = offset === undefined ? '' : `write at byte ${offset}: `;
  return new FusetapError('NO_SPACE', `${where}the limit of ram images is reached`, {
    errno: E.ENOSPC,
    ...(offset !== undefined && { operation: 'write', offset }),
    hint: 'detach other ram vbds (fusetap memory lists them), or raise FUSETAP_RAM_LIMIT',
  });
}
