/** A RawDisk that does what a thread does with a window, so that the suite checks it by the same rules. */
import type { Extent, RawDisk, Window } from '../../drivers/driver.js';
import { oneSegment, windowOf } from '../../drivers/segments/one-segment.js';
import {
  durably,
  flushWindow,
  readWindow,
  readWindowNoWait,
  seekWindow,
  writeWindow,
  zeroWindow,
} from '../../drivers/segments/window-sync.js';
import { addressOf, E, SEEK_DATA, SEEK_HOLE, SystemCallError } from '../../system/libc.js';

// not a multiple of a page, so that a wrong split of emulated zeroing is detected
const bytes = Buffer.alloc(3 * 512);
const zeros = { address: addressOf(bytes), bytes };

/** Serves the window of a disk with window-sync.ts only. */
export function bySyncCalls(raw: RawDisk): RawDisk {
  const w = onlyWindow(raw);
  let mayWait = false;
  const reading = {
    size: w.size,
    segments: oneSegment(w),
    async read(buffer: Uint8Array, offset: number) {
      // in turn as a thread that waits, and as one that first tries without waiting
      mayWait = !mayWait;
      const n = mayWait ? -E.EAGAIN : readWindowNoWait(w, addressOf(buffer), offset, buffer.length);
      const count = n === -E.EAGAIN ? readWindow(w, addressOf(buffer), offset, buffer.length) : n;
      expectCount('read', count, buffer.length);
    },
    extents: async (offset: number, length: number) => [extentAt(w, offset, offset + length)],
    close: () => raw.close(),
  };
  if (w.readOnly) return reading;
  return {
    ...reading,
    async write(buffer, offset, { durable }) {
      const n = writeWindow(durable ? durably(w) : w, addressOf(buffer), offset, buffer.length);
      expectCount('write', n, buffer.length);
    },
    flush: async () => expectCount('flush', flushWindow(w), 0),
    async zero(offset, length, { punch, durable }) {
      expectCount('zero', zeroWindow(w, offset, length, { punch, zeros }), 0);
      if (durable) expectCount('flush', flushWindow(w), 0);
    },
  };
}

function onlyWindow(raw: RawDisk): Window {
  const window = windowOf(raw);
  if (window === undefined) throw new TypeError('the disk is no window');
  return window;
}

function expectCount(operation: string, result: number, expected: number): void {
  if (result < 0) throw new SystemCallError(operation, -result);
  if (result !== expected) throw new Error(`${operation} gave ${result} where ${expected} was asked for`);
}

function extentAt(w: Window, offset: number, end: number): Extent {
  const data = seekWindow(w, offset, SEEK_DATA);
  if (data < 0 && data !== -E.ENXIO) throw new SystemCallError('lseek', -data);
  if (data !== offset) return { offset, length: (data < 0 ? end : data) - offset, hole: true };
  return { offset, length: seekWindow(w, offset, SEEK_HOLE) - offset, hole: false };
}
