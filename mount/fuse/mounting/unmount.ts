/**
 * Taking a bus away: its mount, and where nobody serves it any more its connection.
 *
 * Root does it by umount2(2). Who was mounted for by fusermount3 is unmounted by it too, and may abort a connection of
 * its own through the control file system of FUSE, where that is mounted.
 */
import { writeFileSync } from 'node:fs';
import { E, MNT_DETACH, MNT_FORCE, umount2 } from '../../../system/libc.js';
import { type Mount, readMounts } from '../../../system/proc.js';
import { unmountByHelper } from './fusermount.js';

/** as the mount is made */
const BUS_TYPE = 'fuse.fusetap';
const CONNECTIONS = '/sys/fs/fuse/connections';

/** The mounts of buses on the path, the one on top first. */
export async function busMounts(mountpoint: string): Promise<Mount[]> {
  const mounts = (await readMounts('self')).filter((mount) => mount.mountpoint === mountpoint);
  const others = mounts.findLastIndex(({ type }) => type !== BUS_TYPE);
  return mounts.slice(others + 1).reverse();
}

/**
 * Takes the mount of a bus away, also from under somebody's working directory. What is mounted there and is no bus, or
 * another than `dev`, stays.
 * @param dev `MAJ:MIN` of the mount; missing: whichever bus lies on top
 */
export async function unmount(mountpoint: string, dev?: string): Promise<void> {
  const [top] = await busMounts(mountpoint);
  if (top === undefined || (dev !== undefined && top.dev !== dev)) return;
  const errno = -umount2(mountpoint, 0);
  if (errno === E.EBUSY) umount2(mountpoint, MNT_DETACH);
  else if (errno === E.EPERM && !(await unmountByHelper(mountpoint, false))) await unmountByHelper(mountpoint, true);
}

/**
 * Aborts the connection of the mount: whoever waits gets ECONNABORTED, and whoever comes ENOTCONN.
 * @returns false where we may not: the connection then ends with its last descriptor
 */
export async function abortConnection(mountpoint: string, dev?: string): Promise<boolean> {
  const [top] = await busMounts(mountpoint);
  // somebody has taken the mount away, or all users of its connection: nobody can wait any more
  if (top === undefined || (dev !== undefined && top.dev !== dev)) return true;
  if (-umount2(mountpoint, MNT_FORCE) !== E.EPERM) return true;
  try {
    writeFileSync(`${CONNECTIONS}/${top.dev.split(':')[1]}/abort`, '1');
    return true;
  } catch {
    return false;
  }
}
