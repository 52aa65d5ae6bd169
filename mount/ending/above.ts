/**
 * Finds the devices and file systems above a vbd that have caches of their own: loop devices on its files, device
 * mapper devices on those, and the file systems mounted from them, in all visible mount namespaces. Reads only /proc
 * and /sys, so it makes no call that may hang.
 */
import {
  isDeviceReadOnly,
  listDevicesAbove,
  locate,
  type Mount,
  type MountNamespace,
  readDeviceFamily,
  readNamespaces,
} from '../../system/proc.js';
import { findLoopsOn, type HeldFile } from '../holders/find-holders.js';

/** A file system that is mounted for writing. */
export interface MountAbove {
  /** one of its mount points, as seen in its own mount namespace */
  readonly mountpoint: string;
  /** a path by which it can be reached from here; null if other mounts cover all its mount points */
  readonly path: string | null;
  /** as `MAJOR:MINOR` */
  readonly dev: string;
  /** it is a FUSE file system: its program must be asked to write back */
  readonly isFuse: boolean;
}

export interface Above {
  readonly mounts: readonly MountAbove[];
  /** nodes of the writable block devices, the uppermost first, as `/dev/loop0` */
  readonly devices: readonly string[];
}

/** The mounts and devices above the files of a vbd: its own file and those of its partitions. */
export async function findAbove(files: readonly HeldFile[]): Promise<Above> {
  const namespaces = await readNamespaces();
  const mounts = namespaces.map((namespace) => namespace.mounts);
  const loops = files.flatMap((file) => findLoopsOn(file, mounts)).filter(({ readOnly }) => !readOnly);
  const above = listDevicesAbove(loops.flatMap(({ devs }) => devs)).filter(({ name }) => !isDeviceReadOnly(name));
  const own = loops.flatMap(({ devs: [dev = ''] }) => readDeviceFamily(dev)).filter(({ readOnly }) => !readOnly);
  // partitions before their disk
  const nodes = [...above, ...own.reverse()];
  const devices = [...new Set(nodes.map(({ name }) => `/dev/${name}`))];
  const devs = new Set(nodes.map(({ dev }) => dev));
  const sources = new Set(devices);
  const paths = new Set(files.map(({ path }) => path));
  const isAbove = ({ dev, type, source }: Mount): boolean =>
    // a file system on several devices has a device number of its own, and one of the devices as its source
    devs.has(dev) || sources.has(source) || (type.startsWith('fuse') && paths.has(source));
  return { mounts: mountsOf(namespaces, isAbove), devices };
}

/** One mount for each file system: the first mount that can be reached. */
function mountsOf(namespaces: readonly MountNamespace[], isAbove: (mount: Mount) => boolean): MountAbove[] {
  const byDev = new Map<string, MountAbove>();
  for (const { pid, mounts } of namespaces) {
    for (const mount of mounts.filter(({ readOnly }) => !readOnly).filter(isAbove)) {
      const { mountpoint, dev, type } = mount;
      if (byDev.get(dev)?.path) continue;
      const isOnTop = locate(mounts, mountpoint)?.dev === dev;
      const path = pid === 'self' ? mountpoint : `/proc/${pid}/root${mountpoint}`;
      byDev.set(dev, { mountpoint, path: isOnTop ? path : null, dev, isFuse: type.startsWith('fuse') });
    }
  }
  return [...byDev.values()];
}
