/**
 * The way back: whatever is mounted on a directory from a vbd is unmounted, and the vbd is detached. Where it comes from
 * is told by the kernel (the source of the mount, the file of its loop device), so nobody has to remember it.
 */
import { realpathSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import { listLoops, type Mount, readMounts } from '../../../system/proc.js';
import type { DetachResult, VbdInfo } from '../../bus/interface.js';
import { resolveBus } from '../../bus/runtime-dir.js';
import { detach } from '../../client.js';
import { findFusermount } from '../../fuse/fusermount.js';
import { listBuses } from '../list-buses.js';
import { runTool } from './run-tool.js';

/** a loop device, or a FUSE program that writes back, lets go of the vbd after its mount is gone */
const LET_GO_SECONDS = 60;

/**
 * Unmounts and detaches.
 * @throws FusetapError NOT_FOUND where nothing of a vbd is mounted there, BUSY where it is in use: nothing was done then
 */
export async function unmountImage(directory: string, runtimeDir: string): Promise<DetachResult> {
  const path = realMountpoint(directory);
  const mount = (await readMounts('self')).findLast(({ mountpoint }) => mountpoint === path);
  if (mount === undefined) throw notMounted(path, 'nothing is mounted there');
  const vbd = await findVbdBelow(mount, runtimeDir);
  if (vbd === null) throw notMounted(path, `what is mounted there is not of a vbd, but of ${mount.source}`);
  await unmount(mount);
  return detach(await resolveBus(vbd.bus, runtimeDir), vbd.vdev, { waitSeconds: LET_GO_SECONDS });
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

function notMounted(path: string, why: string): FusetapError {
  return new FusetapError('NOT_FOUND', `no image is mounted on ${path}: ${why}`, {
    hint: 'fusetap ls lists what is attached; umount(8) unmounts the rest',
    path,
  });
}

async function findVbdBelow({ source }: Mount, runtimeDir: string): Promise<VbdInfo | null> {
  const loop = listLoops().find(({ path, devs: [dev = ''] }) => path === source || `/dev/block/${dev}` === source);
  const file = loop?.backingFile ?? source;
  const vbds = (await listBuses(runtimeDir)).buses.flatMap(({ vbds }) => vbds);
  const isItsFile = ({ path, partitions }: VbdInfo): boolean =>
    path === file || (partitions ?? []).some((partition) => partition.path === file);
  return vbds.find(isItsFile) ?? null;
}

async function unmount({ mountpoint, type }: Mount): Promise<void> {
  const what = `cannot unmount ${mountpoint}`;
  const hint = `fuser -vm ${mountpoint} shows who uses it`;
  const helper = type.startsWith('fuse') && process.geteuid?.() !== 0 ? findFusermount() : null;
  if (helper !== null) await runTool(helper, ['-u', mountpoint], what, { hint });
  // without helpers: mount.fusetap has itself called by umount(8)
  else await runTool('umount', ['-i', mountpoint], what, { hint });
}
