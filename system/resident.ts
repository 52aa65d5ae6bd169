/**
 * Buffers that are resident in RAM and stay there.
 *
 * If a server is killed while the kernel copies between /dev/fuse and a page that is not resident, the client gets EIO:
 * 579 errors in 477 kills with buffers that were not resident, none in 467 with these. So every buffer that is passed
 * to the device is touched page by page and locked before its first use.
 */
import { addressOf, mlock } from './libc.js';
import { bytesToPage, PAGE_BYTES } from './page.js';

export interface Resident {
  /** page-aligned */
  readonly address: number;
  readonly bytes: Buffer;
  /** false if RLIMIT_MEMLOCK forbade mlock: the pages are touched all the same, but the system may reclaim them */
  readonly locked: boolean;
}

/** `length` bytes of resident memory, zeroed and page-aligned. Never freed. */
export function allocateResident(length: number): Resident {
  const whole = new Uint8Array(new ArrayBuffer(length + PAGE_BYTES));
  const start = addressOf(whole);
  const skip = bytesToPage(start);
  const bytes = Buffer.from(whole.buffer, skip, length);
  const locked = makeResident({ address: start + skip, bytes });
  kept.push(bytes);
  return { address: start + skip, bytes, locked };
}

/** Makes memory that is zeros resident. @returns false if the pages are not locked */
export function makeResident({ address, bytes }: Omit<Resident, 'locked'>): boolean {
  // write, do not read: a read of an untouched page maps the shared zero page, which the first write then replaces
  for (let at = 0; at < bytes.length; at += PAGE_BYTES) bytes[at] = 0;
  bytes[bytes.length - 1] = 0;
  return mlock(address, bytes.length);
}

// an address is a plain number, so keep a reference: the buffer must never be garbage-collected
const kept: Buffer[] = [];
