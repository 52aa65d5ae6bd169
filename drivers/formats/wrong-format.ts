/** The error for an image that is not of the format that the user named. */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { PROBED_BYTES, recognizeForeign } from './foreign.js';
import { readUpTo } from './read.js';

/** Names the format that the image looks like. @param format for example `a VHD image` */
export async function wrongFormat(disk: Disk, format: string): Promise<FusetapError> {
  const length = Math.min(PROBED_BYTES, disk.size);
  const first = await readUpTo(disk, 0, length);
  const found = recognizeForeign(first, await readUpTo(disk, disk.size - length, length));
  if (found === null) {
    return new FusetapError('USAGE', `it is not ${format}`, {
      hint: 'check the name; use aio if its bytes are the disk',
    });
  }
  return new FusetapError('USAGE', `it is not ${format}: it is ${found.is}`, { hint: found.hint });
}
