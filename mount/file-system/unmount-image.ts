/**
 * The reverse of mount-image.ts: unmounts a directory on which a vbd is mounted, and detaches the vbd. The kernel knows
 * the vbd (the source of the mount, the file of its loop device), so no state is kept.
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
 * Unmounts the directory, and detaches the vbd unless it is still in use, for example by a mount of another partition.
 * @throws FusetapError NOT_FOUND if no vbd is mounted there, BUSY if the mount is in use; nothing was done then
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
  if (vbd === null) throw notMounted(path, `the mount there is of ${mount.source}, not of a vbd`);
  const place = await resolveBus(vbd.bus, runtimeDir);
  const own = await findOwnHolders(fileBelow(mount));
  await unmount(mount, telling);
  return detachUnlessUsed(place, vbd.vdev, own, telling);
}

/** The real path of a mount point, found without a call on the mount itself: its server may be dead. */
function realMountpoint(directory: string): string {
  const path = resolve(directory);
  try {
    return path === '/' ? path : join(realpathSync(dirname(path)), basename(path));
  } catch {
    return path;
  }
}

/** The mount on a directory, or on the target of a symbolic link, because `mount` takes both. */
function findMount(mounts: readonly Mount[], directory: string, links = 0): Mount | undefined {
  const path = realMountpoint(directory);
  const found = mounts.findLast(({ mountpoint }) => mountpoint === path);
  if (found !== undefined || links === MOST_LINKS) return found;
  try {
    return findMount(mounts, resolve(dirname(path), readlinkSync(path)), links + 1);
  } catch {
    // it is not a link
    return undefined;
  }
}

/** the limit of the kernel */
const MOST_LINKS = 40;

function notMounted(path: string, why: string): FusetapError {
  return new FusetapError('NOT_FOUND', `no image is mounted on ${path}: ${why}`, {
    hint: 'fusetap ls lists the attached vbds; unmount other mounts with umount(8)',
    path,
  });
}

/** The file below a mount, and its loop device if it has one. The mount may be of a partition of the loop device. */
export function fileBelow({ source, dev }: Mount): FileBelow {
  // the device number identifies the loop device, but some file systems (btrfs) have a number of their own
  const loop = listLoops().find(({ path, devs }) => devs.includes(dev) || isNodeOf(source, path, devs));
  return { file: loop?.backingFile ?? source, loop: loop?.path ?? null };
}

function isNodeOf(source: string, path: string, devs: readonly string[]): boolean {
  if (source === path || devs.some((dev) => source === `/dev/block/${dev}`)) return true;
  return source.startsWith(`${path}p`) && /^\d+$/.test(source.slice(path.length + 1));
}

async function findVbdBelow(mount: Mount, runtimeDir: string): Promise<VbdInfo | null> {
  const { file } = fileBelow(mount);
  // any user can give a FUSE mount any source: trust only our own FUSE mounts
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
  // without helpers (-i): umount(8) would call umount.fusetap, which calls this
  else await runTool('umount', ['-i', mountpoint], what, { hint, waits });
}
