/**
 * The bound of ram images for what is written on the event loop: below filters that wait or fail on purpose, of files
 * that were held meanwhile, by transports without threads. The same rules as for threads, which may wait where they
 * stand (mount/ram/growth.ts).
 *
 * It stands directly on the driver's disk: there it is known which bytes of the memory a write is about, whatever
 * filters make of offsets and sizes above.
 */
import type { Driver, RawDisk, Window } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { E } from '../../system/libc.js';
import { until } from '../../system/until.js';
import type { Ledger } from '../ledger/ledger.js';
import { hasHole, PATIENCE_MS, pagesOf } from './growth.js';

const POLL_MS = 1;

/** Where room for more memory is asked for. */
export interface MemoryRoom {
  readonly ledger: Ledger;
  readonly ledgerIndex: number;
  /** has the keeper look at the ledger */
  ask(): void;
}

/** A driver whose disks take no more memory than they may, to be opened with. */
export function boundMemory(driver: Driver, room: MemoryRoom): Driver {
  const { name, image } = driver;
  return { name, image, open: async (context) => boundDisk(await driver.open(context), room) };
}

/** A disk that is no run of memory is returned as it is. */
export function boundDisk(raw: RawDisk, room: MemoryRoom): RawDisk {
  const { window, size } = raw;
  if (window?.kind !== 'memory' || window.readOnly || raw.write === undefined) return raw;
  const disk: RawDisk = {
    size,
    window,
    read: (buffer, offset) => raw.read(buffer, offset),
    async write(buffer, offset, options) {
      if (!(await mayFill(window, room, offset, buffer.byteLength))) throw isFull(offset);
      await raw.write?.(buffer, offset, options);
    },
    close: () => raw.close(),
  };
  if (raw.flush) disk.flush = async () => raw.flush?.();
  if (raw.extents) disk.extents = async (offset, length) => (await raw.extents?.(offset, length)) ?? [];
  if (raw.zero) disk.zero = async (offset, length, options) => raw.zero?.(offset, length, options);
  return disk;
}

async function mayFill(window: Window, room: MemoryRoom, offset: number, length: number): Promise<boolean> {
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

function isAnswered({ ledger, ledgerIndex }: MemoryRoom, question: number): Promise<boolean> {
  const isSo = (): boolean => ledger.isCreditAnswered(ledgerIndex, question);
  return until(isSo, { timeoutMs: PATIENCE_MS, everyMs: POLL_MS });
}

function isFull(offset: number): FusetapError {
  return new FusetapError('NO_SPACE', `write at byte ${offset}: the limit of ram images is reached`, {
    errno: E.ENOSPC,
    operation: 'write',
    offset,
    hint: 'detach other ram vbds (fusetap memory lists them), or raise FUSETAP_RAM_LIMIT',
  });
}
