/**
 * Serves a window in a thread: the same operations as window.ts, synchronous, on memory given by its address.
 *
 * Each function runs once per request. So it takes numbers and returns a count or −errno, it does not allocate or
 * throw, and it makes one foreign call in the usual case: loops repeat only after a short count or EINTR. Each clamps
 * the range to the window. Offsets are bytes from the start of the window and are not negative.
 */
import {
  E,
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  fallocate,
  fdatasync,
  fsync,
  lseek,
  pread,
  preadNoWait,
  prefetch,
  pwrite,
  pwriteDsync,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../system/libc.js';
import type { Window } from '../driver.js';

const SEEK_END = 2;
const { EAGAIN, EINTR, EINVAL, EIO, ENOSPC, ENOSYS, ENXIO, EOPNOTSUPP, EROFS } = E;
/** writes tear only at sector boundaries, also emulated zeroing */
const SECTOR_BYTES = 512;

/** how many of the `length` bytes from `offset` are inside the window */
function inside(w: Window, offset: number, length: number): number {
  const left = w.size - offset;
  return left <= 0 ? 0 : Math.min(left, length);
}

/** Reads. The range is cut at the end of the window; 0 at and beyond the end. −EIO if the image has shrunk. */
export function readWindow(w: Window, address: number, offset: number, length: number): number {
  const wanted = inside(w, offset, length);
  let done = 0;
  while (done < wanted) {
    const n = pread(w.fd, address + done, wanted - done, w.start + offset + done);
    if (n > 0) done += n;
    else if (n === 0) return -EIO;
    else if (n !== -EINTR) return n;
  }
  return done;
}

/**
 * Reads without waiting: −EAGAIN if a part of the range is not in memory, or if the file system cannot tell. Then the
 * bytes at `address` are undefined; call readWindow in a thread that may wait.
 */
export function readWindowNoWait(w: Window, address: number, offset: number, length: number): number {
  // a memfd never waits, and its file system refuses RWF_NOWAIT
  if (w.kind === 'memory') return readWindow(w, address, offset, length);
  const wanted = inside(w, offset, length);
  if (wanted === 0) return 0;
  const n = preadNoWait(w.fd, address, wanted, w.start + offset);
  if (n === wanted) return n;
  return n >= 0 || n === -EOPNOTSUPP || n === -EINTR ? -EAGAIN : n;
}

/** Starts to read the range from the disk into the page cache, and does not wait for it. */
export function prefetchWindow(w: Window, offset: number, length: number): void {
  const wanted = inside(w, offset, length);
  if (wanted > 0) prefetch(w.fd, w.start + offset, wanted);
}

/** The same window with durable writes, as for a file opened with O_DSYNC. It allocates: call it once and keep it. */
export function durably(w: Window): Window {
  return w.durable ? w : { ...w, durable: true };
}

/**
 * Writes. The range is cut at the end of the window; −ENOSPC at and beyond the end, −EROFS on a read-only window, −EIO
 * beyond the end of an image that has shrunk. In a durable window the counted bytes are durable. After an error in the
 * middle, the error is returned, although some bytes are written: a loop device takes a short count for success.
 */
export function writeWindow(w: Window, address: number, offset: number, length: number): number {
  if (w.readOnly) return -EROFS;
  if (length === 0) return 0;
  const wanted = inside(w, offset, length);
  if (wanted === 0) return -ENOSPC;
  let done = 0;
  while (done < wanted) {
    const n = writeOnce(w, address + done, offset + done, wanted - done);
    if (n > 0) done += n;
    else if (n !== -EINTR) return n === 0 ? -EIO : n;
  }
  return done;
}

function writeOnce(w: Window, address: number, offset: number, length: number): number {
  if (leavesGap(w, offset)) return -EIO;
  // memory is never durable
  if (w.durable && w.kind !== 'memory') return writeDurably(w, address, offset, length);
  return pwrite(w.fd, address, length, w.start + offset);
}

/** Whether the image has shrunk so much that a write there would silently replace lost bytes by zeros. */
export function leavesGap(w: Window, offset: number): boolean {
  // sealed memory cannot shrink, and a write to a block device never grows it
  if (w.kind !== 'file') return false;
  const end = lseek(w.fd, 0, SEEK_END);
  return end >= 0 && end < w.start + offset;
}

function writeDurably(w: Window, address: number, offset: number, length: number): number {
  const n = pwriteDsync(w.fd, address, length, w.start + offset);
  if (n !== -EOPNOTSUPP && n !== -ENOSYS) return n;
  const written = pwrite(w.fd, address, length, w.start + offset);
  if (written < 0) return written;
  const error = fdatasync(w.fd);
  return error < 0 ? error : written;
}

/** Makes acknowledged writes durable: 0 or −errno. Always 0 for memory, which is never durable. */
export function flushWindow(w: Window): number {
  if (w.kind === 'memory') return 0;
  let n = fsync(w.fd);
  while (n === -EINTR) n = fsync(w.fd);
  return n;
}

/** How to zero a range. Make it once, not for each request. */
export interface Zeroing {
  /** free the space of the range */
  readonly punch: boolean;
  /** 512 or more zero bytes, written if the file system cannot zero by itself. `bytes` keeps them referenced. */
  readonly zeros: { readonly address: number; readonly bytes: Uint8Array };
}

/** Makes the part of a range inside the window read as zeros: 0 or −errno. */
export function zeroWindow(w: Window, offset: number, length: number, how: Zeroing): number {
  if (w.readOnly) return -EROFS;
  const wanted = inside(w, offset, length);
  if (wanted === 0) return 0;
  const n = fallocateWindow(w, zeroMode(w, how.punch), offset, wanted);
  if (n < 0) return cannotZero(w, -n) ? writeZeros(w, offset, wanted, how) : n;
  return w.durable && w.kind !== 'memory' ? fdatasync(w.fd) : 0;
}

/** The mode of fallocate(2) that zeroes. A memfd has no ZERO_RANGE, so zeroing it is punching. */
export function zeroMode(w: Window, punch: boolean): number {
  return FALLOC_FL_KEEP_SIZE | (punch || w.kind === 'memory' ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

/**
 * Whether the error of fallocate means that zeros must be written. Block devices return EINVAL for unaligned ranges.
 */
export function cannotZero(w: Window, errno: number): boolean {
  return errno === EOPNOTSUPP || errno === ENOSYS || (w.kind === 'block' && errno === EINVAL);
}

function writeZeros(w: Window, offset: number, length: number, { zeros: { address, bytes } }: Zeroing): number {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const next = Math.min(end, at - (at % SECTOR_BYTES) + bytes.length - (bytes.length % SECTOR_BYTES));
    const n = writeWindow(w, address, at, next - at);
    if (n < 0) return n;
    at += n;
  }
  return 0;
}

/**
 * fallocate(2) modes 0 and 1: allocates space for a range; 0 or −errno. A range that is not wholly inside is −ENOSPC,
 * and the image is not changed (coherence rule 7), so both modes are the same here. −EOPNOTSUPP for block devices,
 * which have nothing to allocate.
 */
export function allocateWindow(w: Window, offset: number, length: number): number {
  if (w.readOnly) return -EROFS;
  if (offset + length > w.size) return -ENOSPC;
  if (w.kind === 'block') return -EOPNOTSUPP;
  return fallocateWindow(w, FALLOC_FL_KEEP_SIZE, offset, length);
}

function fallocateWindow(w: Window, mode: number, offset: number, length: number): number {
  let n = fallocate(w.fd, mode, w.start + offset, length);
  while (n === -EINTR) n = fallocate(w.fd, mode, w.start + offset, length);
  return n;
}

/**
 * lseek(2) SEEK_DATA or SEEK_HOLE: a position in the window, or −errno. −ENXIO at and beyond the end, and if no data
 * follows. The end counts as a hole. Block devices, and file systems that cannot tell, count as all data. −EIO if the
 * image has shrunk, so that its lost part is not taken for a hole.
 */
export function seekWindow(w: Window, offset: number, whence: number): number {
  if (offset >= w.size) return -ENXIO;
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) return -EINVAL;
  const n = w.kind === 'block' ? -EINVAL : lseek(w.fd, w.start + offset, whence);
  if (n === -EINVAL) return whence === SEEK_DATA ? offset : w.size;
  if (n === -ENXIO) return lseek(w.fd, 0, SEEK_END) < w.start + w.size ? -EIO : -ENXIO;
  if (n < 0) return n;
  const position = n - w.start;
  if (position < w.size) return position;
  return whence === SEEK_DATA ? -ENXIO : w.size;
}
