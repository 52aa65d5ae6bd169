/**
 * Uses of an image by the kernel itself, which takes no locks: loop devices over it, its mounts, devices on top of it,
 * swap. Xen's hotplug scripts make the same check, but by name; here it is by device and inode.
 */
import { open, realpath, stat } from 'node:fs/promises';
import type { Holder } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { loopStatusAsync } from '../../system/libc.js';
import {
  type DeviceNode,
  deviceName,
  isDeviceReadOnly,
  type Loop,
  listLoops,
  listSwaps,
  locate,
  type Mount,
  readDeviceFamily,
  readMountNamespaces,
} from '../../system/proc.js';
import { within } from '../../system/within.js';
import { nameLoop } from '../holders/find-holders.js';
import type { OpenedImage } from './open-image.js';

/** a loop device over a dead network or FUSE mount never answers, so wait only this long */
const LOOP_PATIENCE_MS = 2_000;

/** A use of the image by the kernel. */
export interface ImageUser {
  holders: Holder[];
  /** whether it may change the image */
  writes: boolean;
  /** the use, as `is mounted on /mnt`; follows the image's name in a message */
  text: string;
  /** how to end it */
  hint: string;
}

type Image = Pick<OpenedImage, 'realPath' | 'dev' | 'ino' | 'kind' | 'rdev'>;

/** All visible uses of the image by the kernel; for a block device also the uses of its partitions and its disk. */
export async function findImageUsers(image: Image): Promise<ImageUser[]> {
  const namespaces = await readMountNamespaces();
  const family = image.rdev === null ? [] : readDeviceFamily(image.rdev);
  const users = [
    ...(await findLoopUsers(image, family, namespaces)),
    ...(await findMountUsers(family, namespaces)),
    ...findDeviceUsers(family),
    ...findSwapUsers(image, family),
  ];
  return users;
}

async function findLoopUsers(image: Image, family: DeviceNode[], namespaces: Mount[][]): Promise<ImageUser[]> {
  const loops = await Promise.all(
    listLoops().map(async (loop) => ((await isBackedBy(loop, image, family, namespaces[0] ?? [])) ? [loop] : [])),
  );
  return loops.flat().map((loop) => {
    const holders = nameLoop(loop, namespaces);
    const mountpoints = holders.flatMap((holder) => holder.mount ?? []);
    const mounted = mountpoints.length > 0 ? `, mounted on ${mountpoints.map(named).join(', ')}` : '';
    return {
      holders,
      writes: !loop.readOnly,
      text: `is used by the ${loop.readOnly ? 'read-only ' : ''}loop device ${loop.path}${mounted}`,
      hint: [...mountpoints.map((path) => `umount ${named(path)}`), `losetup -d ${loop.path}`].join('; '),
    };
  });
}

/** Whether the loop device is on the image, or on a device of its family. */
async function isBackedBy(loop: Loop, image: Image, family: DeviceNode[], mounts: Mount[]): Promise<boolean> {
  // the kernel asks the file system below for the answer: do not ask a FUSE file system, unless the image is on it too
  const place = locate(mounts, loop.backingFile);
  const imagePlace = locate(mounts, image.realPath);
  if (place?.type.startsWith('fuse') && place.dev !== imagePlace?.dev) return false;
  const backing = await backingOf(loop);
  if (!backing) return false;
  if (image.rdev === null) return backing.dev === image.dev && backing.ino === image.ino;
  return family.some((device) => device.dev === backing.rdev);
}

/** The backing file of a loop device; null if it is not known within LOOP_PATIENCE_MS. */
export function backingOf(loop: Loop): Promise<Backing | null> {
  return within(readBacking(loop), LOOP_PATIENCE_MS, null);
}

interface Backing {
  dev: string;
  ino: string;
  rdev: string;
}

/** Asks the loop device for its backing file. If only root may open the device, finds the file by its path. */
async function readBacking(loop: Loop): Promise<Backing | null> {
  try {
    const device = await open(loop.path, 'r');
    try {
      const status = await loopStatusAsync(device.fd);
      return status && { dev: deviceName(status.dev), ino: String(status.ino), rdev: deviceName(status.rdev) };
    } finally {
      await device.close();
    }
  } catch {
    const stats = await stat(loop.backingFile, { bigint: true }).catch(() => null);
    return stats && { dev: deviceName(stats.dev), ino: String(stats.ino), rdev: deviceName(stats.rdev) };
  }
}

async function findMountUsers(family: DeviceNode[], namespaces: Mount[][]): Promise<ImageUser[]> {
  if (family.length === 0) return [];
  const mounts = await Promise.all(
    namespaces.flat().map(async (mount) => ((await isMountOf(mount, family)) ? [mount] : [])),
  );
  const places = new Map(mounts.flat().map((mount) => [mount.mountpoint, mount]));
  return [...places.values()].map(({ mountpoint, readOnly }) => ({
    holders: [{ mount: mountpoint }],
    writes: !readOnly,
    text: `is mounted${readOnly ? ' read-only' : ''} on ${named(mountpoint)}`,
    hint: `umount ${named(mountpoint)}`,
  }));
}

async function isMountOf(mount: Mount, family: DeviceNode[]): Promise<boolean> {
  if (family.some((device) => device.dev === mount.dev)) return true;
  // a file system on several devices, as btrfs, has a device number of its own and names one of the devices as source
  if (!mount.dev.startsWith('0:') || !mount.source.startsWith('/dev/')) return false;
  const source = await realpath(mount.source).catch(() => mount.source);
  return family.some((device) => source === `/dev/${device.name}`);
}

function findDeviceUsers(family: DeviceNode[]): ImageUser[] {
  return family.flatMap((device) =>
    device.holders.map((name) => ({
      holders: [],
      writes: !isDeviceReadOnly(name),
      text: `is part of /dev/${name}`,
      hint: `remove /dev/${name} (dmsetup, mdadm, vgchange)`,
    })),
  );
}

function findSwapUsers(image: Image, family: DeviceNode[]): ImageUser[] {
  const own = [image.realPath, ...family.map((device) => `/dev/${device.name}`)];
  return listSwaps()
    .filter((path) => own.includes(path))
    .map((path) => ({ holders: [], writes: true, text: 'is swap space', hint: `swapoff ${named(path)}` }));
}
