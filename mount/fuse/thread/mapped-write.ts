/**
 * Large writes into images that are in memory (ram, and files on tmpfs), bypassing the lock of the file: the image is
 * mapped in this process, and the thread's buffer is copied there.
 *
 *      pwrite     one write at a time in a file; each page is looked up, locked, and loaded into the CPU cache first
 *      mapped     in parallel, and bypassing the CPU cache (node-options.ts makes memcpy do that)
 *
 * A process that touches pages which the file no longer has is killed (SIGBUS). So the kernel is first asked for the
 * pages. If it has none, for example because the image has shrunk or its file system is full, pwrite finds out why. The
 * image can still shrink in the microseconds of the copy: that kills the server, the next server answers the request,
 * and maps no files (keeper/supervision/server-process.ts). Memory of ram images is sealed and cannot shrink.
 *
 * A pwrite of the last sector does the side effects of a write: it sets the times of the file, and notifies watchers.
 */
import type { Window } from '../../../drivers/driver.js';
import { copyMemory, lseek, populate } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';

/** from this size on, the lock costs more than another call */
export const MAPPED_BYTES = 16 << 10;
const SECTOR_BYTES = 512;
const SEEK_END = 2;

/** A window, and the address of its first byte in this process. */
export interface MappedWindow {
  readonly window: Window;
  readonly mappedAt: number;
}

/**
 * Writes the beginning of a range.
 * @param from the address of the bytes to write
 * @returns bytes written from the start of the range; never the whole range of a file; 0: use pwrite instead
 */
export function writeMapped({ window, mappedAt }: MappedWindow, from: number, offset: number, length: number): number {
  if (window.readOnly || offset + length > window.size) return 0;
  const isFile = window.kind === 'file';
  // bytes after the end of the file, in its last page, would be lost without an error
  if (isFile && lseek(window.fd, 0, SEEK_END) < window.start + offset + length) return 0;
  const copied = isFile ? length - SECTOR_BYTES : length;
  const to = mappedAt + offset;
  const skip = to % PAGE_BYTES;
  if (populate(to - skip, skip + copied) !== 0) return 0;
  copyMemory(to, from, copied);
  return copied;
}
