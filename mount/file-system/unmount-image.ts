/**
 * The way back: whatever is mounted on a directory from a vbd is unmounted, and the vbd is detached. Where it comes from
 * is told by the kernel (the source of the mount, the file of its loop device), so nobody has to remember it.
 */
import { readlinkSync, realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { listLoops, type Mount, readMounts } from '../../system/proc.js';
import { findFusermount } from '../../system/programs.js';
import { listBuses } from '../client/list-buses.js';
import type { DetachResult, VbdInfo } from '../control/interface.js';
import { resolveBus } from '../runtime/bus-place.js';
import { type DetachTelling, detachUnlessUsed, type FileBelow, findOwnHolders } from './detach-unless-used.js';
import { runTool } from './run-tool.js';

/**
 * Unmounts; and detaches the vbd, unless others use it: another partition that is mounted, or another mount of the same.
 * @throws FusetapError NOT_FOUND if nothing of a vbd is mounted there, BUSY if the mount is in use: nothing was done
 *   then
 */
export async function unmountImage(
  directory: string,
  runtimeDir: string,
  telling: DetachTelling = {},
): Promise<DetachResult> {
  const mounts = await readMounts('self');
  const mount = findMount(mounts, directory);
  const path = mount?.mountpoint ?? realMountpoint(directory);
  if (mount === undefined) throw notMounted(path, 'nothing is mounted there');
  const vbd = await findVbdBelow(mount, runtimeDir);
  if (vbd === null) throw notMounted(path, `what is mounted there is not of a vbd, but of ${mount.source}`);
  const place = await resolveBus(vbd.bus, runtimeDir);
  const own = await findOwnHolders(fileBelow(mount));
  await unmount(mount, telling);
  return detachUnlessUsed(place, vbd.vdev, own, telling);
}

/** The directory itself is not asked: what serves it may be dead. */
function realMountpoint(directory: string): string {
  const path = resolve(directory);
  try {
    return path === '/' ? path : join(realpathSync(dirname(path)), basename(path));
  } catch {
    return path;
  }
}

/** What is mounted on a directory, or where a symbolic link leads; as `mount` takes both. */
function findMount(mounts: readonly Mount[], directory: string, links = 0): Mount | undefined {
  const path = realMountpoint(directory);
  const found = mounts.findLast(({ mountpoint }) => mountpoint === path);
  if (found !== undefined || links === MOST_LINKS) return found;
  try {
    return findMount(mounts, resolve(dirname(path), readlinkSync(path)), links + 1);
  } catch {
    // it is no link
    return undefined;
  }
}

/** as many as the kernel follows */
const MOST_LINKS = 40;

function notMounted(path: string, why: string): FusetapError {
  return new FusetapError('NOT_FOUND', `no image is mounted on ${path}: ${why}`, {
    hint: 'fusetap ls lists what is attached; umount(8) unmounts the rest',
    path,
  });
}

/** The file that a mount is of, and its loop device where it has one: the mount may be of a partition of that. */
export function fileBelow({ source, dev }: Mount): FileBelow {
  // the number is the kernel's, but some file systems (btrfs) have one of their own
  const loop = listLoops().find(({ path, devs }) => devs.includes(dev) || isNodeOf(source, path, devs));
  return { file: loop?.backingFile ?? source, loop: loop?.path ?? null };
}

function isNodeOf(source: string, path: string, devs: readonly string[]): boolean {
  if (source === path || devs.some((dev) => source === `/dev/block/${dev}`)) return true;
  return source.startsWith(`${path}p`) && /^\d+$/.test(source.slice(path.length + 1));
}

async function findVbdBelow(mount: Mount, runtimeDir: string): Promise<VbdInfo | null> {
  const { file } = fileBelow(mount);
  // any user may give a FUSE mount any source: only our own say the truth of our vbds
  if (mount.type.startsWith('fuse') && mount.owner?.uid !== process.geteuid?.()) return null;
  const vbds = (await listBuses(runtimeDir)).buses.flatMap(({ vbds }) => vbds);
  const isItsFile = ({ path, partitions }: VbdInfo): boolean =>
    path === file || (partitions ?? []).some((partition) => partition.path === file);
  return vbds.find(isItsFile) ?? null;
}

async function unmount({ mountpoint, type }: Mount, { waits }: DetachTelling): Promise<void> {
  const what = `cannot unmount ${mountpoint}`;
  const hint = `fuser -vm ${mountpoint} shows who uses it`;
  const helper = type.startsWith('fuse') && process.geteuid?.() !== 0 ? findFusermount() : null;
  if (helper !== null) await runTool(helper, ['-u', mountpoint], what, { hint, waits });
  // without helpers: mount.fusetap has itself called by umount(8)
  else await runTool('umount', ['-i', mountpoint], what, { hint, waits });
}
