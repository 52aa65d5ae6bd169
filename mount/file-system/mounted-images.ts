/** Lists the directories on which images are mounted, for umount. Read from the kernel's tables; no state is kept. */
import { listBuses } from '../client/list-buses.js';
import { listFileMounts } from './file-mounts.js';

/** The directories on which a vbd or a partition of it is mounted, the last mounted first. */
export async function listMountedImages(runtimeDir: string): Promise<string[]> {
  const [mounts, { buses }] = await Promise.all([listFileMounts(), listBuses(runtimeDir)]);
  const vbds = buses.flatMap(({ vbds }) => vbds);
  const files = new Set(vbds.flatMap(({ path, partitions }) => [path, ...(partitions ?? []).map((one) => one.path)]));
  const mounted = mounts.filter(({ file }) => files.has(file)).map(({ mountpoint }) => mountpoint);
  return [...new Set(mounted.reverse())];
}
