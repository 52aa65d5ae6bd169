/**
 * Removes a bus: its mount, and its connection if nobody serves it any more.
 *
 * Root uses umount2(2). A bus that fusermount3 mounted is also unmounted by fusermount3; its owner can abort the
 * connection through the control file system of FUSE, if that is mounted.
 */
import { writeFileSync } from 'node:fs';
import { E, MNT_DETACH, MNT_FORCE, umount2 } from '../../../system/libc.js';
import { type Mount, readMounts } from '../../../system/proc.js';
import { unmountByHelper } from './fusermount.js';

/** the file system type of a bus, as mounted */
const BUS_TYPE = 'fuse.fusetap';
const CONNECTIONS = '/sys/fs/fuse/connections';

/** The mounts of buses on the path, from the top. */
export async function busMounts(mountpoint: string): Promise<Mount[]> {
  const mounts = (await readMounts('self')).filter((mount) => mount.mountpoint === mountpoint);
  const others = mounts.findLastIndex(({ type }) => type !== BUS_TYPE);
  return mounts.slice(others + 1).reverse();
}

/**
 * Unmounts a bus, even if it is in use, for example as a working directory. A mount that is not a bus, or has another
 * `dev`, stays.
 * @param dev `MAJ:MIN` of the mount; if omitted, the bus on top
 */
export async function unmount(mountpoint: string, dev?: string): Promise<void> {
  const [top] = await busMounts(mountpoint);
  if (top === undefined || (dev !== undefined && top.dev !== dev)) return;
  const errno = -umount2(mountpoint, 0);
  if (errno === E.EBUSY) umount2(mountpoint, MNT_DETACH);
  else if (errno === E.EPERM && !(await unmountByHelper(mountpoint, false))) await unmountByHelper(mountpoint, true);
}

/**
 * Aborts the connection of the mount: requests that wait get ECONNABORTED, later ones ENOTCONN.
 * @returns false if that is not permitted: the connection then ends with its last descriptor
 */
export async function abortConnection(mountpoint: string, dev?: string): Promise<boolean> {
  const [top] = await busMounts(mountpoint);
  // the mount is gone already, so nobody can wait any more
  if (top === undefined || (dev !== undefined && top.dev !== dev)) return true;
  if (-umount2(mountpoint, MNT_FORCE) !== E.EPERM) return true;
  try {
    writeFileSync(`${CONNECTIONS}/${top.dev.split(':')[1]}/abort`, '1');
    return true;
  } catch {
    return false;
  }
}
