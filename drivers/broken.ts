/**
 * Stands in for a disk that a new server could not open: it has the same size (coherence rule 7), all requests are EIO.
 */
import { constants } from 'node:os';
import type { RawDisk } from './driver.js';
import { FusetapError } from './errors.js';

export function brokenDisk(size: number): RawDisk {
  const fail = async (): Promise<never> => {
    throw new FusetapError('FAILED', 'the disk could not be opened again', {
      errno: constants.errno.EIO,
      hint: 'see the log of the bus; detach the vbd, then attach it again',
    });
  };
  return { size, read: fail, write: fail, flush: fail, zero: fail, extents: fail, close: async () => {} };
}
