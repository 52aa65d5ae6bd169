/** A disk that was there and did not come back: its size stays (coherence rule 7), every request is EIO. */
import { constants } from 'node:os';
import type { RawDisk } from './driver.js';
import { FusetapError } from './errors.js';

export function brokenDisk(size: number): RawDisk {
  const fail = async (): Promise<never> => {
    throw new FusetapError('FAILED', 'the disk could not be opened again', {
      errno: constants.errno.EIO,
      hint: 'see the log of the bus; detach it, then attach it anew',
    });
  };
  return { size, read: fail, write: fail, flush: fail, zero: fail, extents: fail, close: async () => {} };
}
