/** Writes to images and data files. A disk cuts a write at its end; here each byte must be written. */
import { constants } from 'node:os';
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';

/** @throws FusetapError NO_SPACE if the disk ends before the last byte */
export async function writeAll(disk: Disk, bytes: Uint8Array, at: number): Promise<void> {
  const n = await disk.write(bytes, at);
  if (n === bytes.byteLength) return;
  throw new FusetapError('NO_SPACE', `it ends at byte ${at + n}, and cannot become larger`, {
    errno: constants.errno.ENOSPC,
  });
}
