/** A partition as a disk: a run of the disk that it is a partition of, coherent with it and sharing all that it has. */
import { closeSync, constants, openSync } from 'node:fs';
import type { RawDisk } from '../driver.js';
import { narrow } from '../filters/narrow.js';
import { windowDisk } from '../window.js';

/**
 * Bytes `offset` to `offset + size` of a disk. To be closed before the disk is; closing it leaves the disk open.
 * @param offset bytes; the run must lie inside the disk
 * @throws Error of the system, where there are no more descriptors
 */
export function partitionDisk(whole: RawDisk, offset: number, size: number, readOnly: boolean): RawDisk {
  const { window } = whole;
  if (window === undefined) return { ...narrow(whole, offset, size), close: async () => {} };
  // the kernel tells each descriptor once of a writeback that failed: sharing one, either would hide it from the other
  const isReadOnly = readOnly || window.readOnly;
  const fd = openSync(`/proc/self/fd/${window.fd}`, isReadOnly ? constants.O_RDONLY : constants.O_RDWR);
  const run = { ...window, fd, start: window.start + offset, size, readOnly: isReadOnly };
  return windowDisk(run, async () => closeSync(fd));
}
