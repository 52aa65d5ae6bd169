/**
 * A disk that is a range of an open file: the RawDisk of the built-in drivers, served on the event loop. Threads serve
 * the same window with window-sync.ts; the conformance suite checks that both behave the same.
 */
import { fdatasync, fsync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { E, fallocateAsync, SEEK_DATA, SEEK_HOLE, SystemCallError } from '../../system/libc.js';
import type { Extent, RawDisk, Window, WriteOptions, ZeroOptions } from '../driver.js';
import { errnoOf, FusetapError } from '../errors.js';
import { readFully, writeFully } from '../file-io.js';
import { oneSegment } from './one-segment.js';
import { cannotZero, leavesGap, seekWindow, zeroMode } from './window-sync.js';
import { WithoutWaiting } from './without-waiting.js';

const fdatasyncAsync = promisify(fdatasync);
const fsyncAsync = promisify(fsync);

/** lseek(2) runs on the event loop, so the extents of a fragmented image are returned in parts */
export const EXTENTS_PER_CALL = 256;

/**
 * The disk of a window. It does not own the descriptor: `close` frees what the caller allocated, often nothing.
 *
 * The disk of a read-only window has no calls that write. A read beyond the end of an image that has shrunk is EIO
 * (coherence rule 7).
 */
export function windowDisk(window: Window, close: () => Promise<void>): RawDisk {
  const io: WindowIo = { window, now: new WithoutWaiting(window) };
  const reading = {
    size: window.size,
    segments: oneSegment(window),
    read: (buffer: Uint8Array, offset: number) => read(io, buffer, offset),
    extents: async (offset: number, length: number) => {
      await nextTurn();
      return windowExtents(window, offset, length, EXTENTS_PER_CALL);
    },
    close,
  };
  if (window.readOnly) return reading;
  return {
    ...reading,
    write: (buffer, offset, options) => write(io, buffer, offset, options),
    flush: () => (window.kind === 'memory' ? Promise.resolve() : fsyncAsync(window.fd)),
    zero: (offset, length, options) => zero(window, offset, length, options),
  };
}

interface WindowIo {
  readonly window: Window;
  readonly now: WithoutWaiting;
}

async function read({ window, now }: WindowIo, buffer: Uint8Array, offset: number): Promise<void> {
  if (now.read(buffer, window.start + offset)) return;
  const n = await readFully(window.fd, buffer, window.start + offset);
  if (n < buffer.byteLength) throw imageShrank('read', offset + n);
}

async function write(
  { window, now }: WindowIo,
  buffer: Uint8Array,
  offset: number,
  options: WriteOptions,
): Promise<void> {
  if (leavesGap(window, offset)) throw imageShrank('write', offset);
  const at = window.start + offset;
  const done = now.write(buffer, at);
  if (done < buffer.byteLength) await writeFully(window.fd, buffer.subarray(done), at + done);
  await makeDurable(window, options.durable);
}

async function zero(window: Window, offset: number, length: number, options: ZeroOptions): Promise<void> {
  const mode = zeroMode(window, options.punch);
  for (;;) {
    try {
      await fallocateAsync(window.fd, mode, window.start + offset, length);
      return await makeDurable(window, options.durable);
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.errno !== E.EINTR) throw unlessSupported(window, error, offset);
    }
  }
}

async function makeDurable(window: Window, durable: boolean): Promise<void> {
  // memory is never durable
  if ((durable || window.durable) && window.kind !== 'memory') await fdatasyncAsync(window.fd);
}

/** If writing zeros would help: an error that makes disk.ts write zeros. Else the error itself. */
function unlessSupported(window: Window, error: unknown, offset: number): unknown {
  if (!(error instanceof SystemCallError) || !cannotZero(window, errnoOf(error))) return error;
  return new FusetapError('UNSUPPORTED', `zero at byte ${offset}: the image cannot`, {
    errno: E.EOPNOTSUPP,
    operation: 'zero',
    offset,
    cause: error,
  });
}

/** The first extents of a range inside the window, at most `limit`, in order and without gaps. */
export function windowExtents(window: Window, offset: number, length: number, limit: number): Extent[] {
  const end = offset + length;
  const extents: Extent[] = [];
  let hole = false;
  for (let at = offset; at < end && extents.length < limit; hole = !hole) {
    const next = Math.min(end, endOfRun(window, at, hole));
    if (next > at) extents.push({ offset: at, length: next - at, hole });
    at = next;
  }
  return extents;
}

function endOfRun(window: Window, offset: number, hole: boolean): number {
  const n = seekWindow(window, offset, hole ? SEEK_DATA : SEEK_HOLE);
  if (n >= 0) return n;
  if (n === -E.ENXIO) return window.size;
  if (n === -E.EIO) throw imageShrank('lseek', offset);
  throw new SystemCallError('lseek', -n);
}

export function imageShrank(operation: string, offset: number): FusetapError {
  return new FusetapError('FAILED', `${operation} at byte ${offset}: the image has shrunk and ends before it`, {
    errno: E.EIO,
    operation,
    offset,
    hint: 'detach, then restore the image: do not truncate an image while it is attached',
  });
}
