/** Lists the directories on which images are mounted, for umount. Read from the kernel's tables; no state is kept. */
import { readMounts } from '../../system/proc.js';
import { listBuses } from '../client/list-buses.js';
import { fileBelow } from './unmount-image.js';

/** The directories on which a vbd or a partition of it is mounted, the last mounted first. */
export async function listMountedImages(runtimeDir: string): Promise<string[]> {
  const [mounts, { buses }] = await Promise.all([readMounts('self'), listBuses(runtimeDir)]);
  const vbds = buses.flatMap(({ vbds }) => vbds);
  const files = new Set(vbds.flatMap(({ path, partitions }) => [path, ...(partitions ?? []).map((one) => one.path)]));
  const mounted = mounts.filter((mount) => files.has(fileBelow(mount).file)).map(({ mountpoint }) => mountpoint);
  return [...new Set(mounted.reverse())];
}
