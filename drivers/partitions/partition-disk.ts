/** A partition as a disk: a range of the whole disk, coherent with it. */
import { closeSync, constants, openSync } from 'node:fs';
import type { RawDisk } from '../driver.js';
import { narrow } from '../filters/narrow.js';
import { windowOf } from '../segments/one-segment.js';
import { windowDisk } from '../segments/window.js';

/**
 * The bytes `offset` to `offset + size` of a disk. Close it before the whole disk; closing it does not close the whole
 * disk.
 * @param offset bytes; the range must be inside the disk
 * @throws a system error if no descriptor is left
 */
export function partitionDisk(whole: RawDisk, offset: number, size: number, readOnly: boolean): RawDisk {
  const window = windowOf(whole);
  if (window === undefined) return { ...narrow(whole, offset, size), close: async () => {} };
  // The kernel reports a failed writeback once to each open file description. If partition and disk shared one, each
  // could hide the error from the other.
  const isReadOnly = readOnly || window.readOnly;
  const fd = openSync(`/proc/self/fd/${window.fd}`, isReadOnly ? constants.O_RDONLY : constants.O_RDWR);
  const run = { ...window, fd, start: window.start + offset, size, readOnly: isReadOnly };
  return windowDisk(run, async () => closeSync(fd));
}
