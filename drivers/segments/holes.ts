/** Whether it is worth to look for holes in a file whose format tells already what is data. */
import { fstat } from 'node:fs';
import { promisify } from 'node:util';
import type { Disk } from '../driver.js';
import { windowOf } from './one-segment.js';

const fstatAsync = promisify(fstat);

/**
 * Whether the file of an image takes clearly less space than its size, as one whose clusters were allocated before they
 * were written (preallocation=metadata). Others have no holes that are worth the time: QEMU decides likewise. True if the
 * image is not in one file.
 * @param clusterBytes the unit in which the image allocates
 */
export async function mayHaveHoles(image: Pick<Disk, 'segments'>, clusterBytes: number): Promise<boolean> {
  const window = windowOf(image);
  if (window === undefined) return true;
  if (window.kind === 'block') return false;
  const { size, blocks } = await fstatAsync(window.fd);
  const taken = blocks * 512;
  return size > (taken / 9) * 10 && size > taken + 2 * clusterBytes;
}
