/**
 * Rule 8 for block devices. A device may have many nodes, and other devices may have the same bytes. So a device is
 * identified by its number and its sector range. Besides the locks on the opened node (claim-image.ts), a claim locks
 * the range on one common file, which is the same for all devices with the same bytes:
 *
 *      partition ──► its disk, from its first sector on ──► the disk's node that the kernel made, /dev/NAME
 *                                                      └──► for a loop device the backing file, from its offset on
 *
 *      lock on the bytes BASE[mode] + first … BASE[mode] + last sector     the range is attached with that mode
 *
 * Partitions that do not overlap may be attached at the same time. A partition and its disk, two nodes of one device,
 * or two loop devices over one file have the same bytes. A claim for writing also opens the device with O_EXCL: the
 * kernel then lets no other process of any container claim the disk or the partition, for a mount, mkfs or another
 * fusetap.
 */
import { closeSync, constants, fstatSync, open } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { E, isRangeLocked, lockRangeShared, SystemCallError, unlockRange } from '../../system/libc.js';
import {
  deviceName,
  listLoops,
  locate,
  readDeviceFamily,
  readDeviceRange,
  readMounts,
  SECTOR_BYTES,
} from '../../system/proc.js';
import { backingOf } from './kernel-users.js';
import type { Mode } from './mode.js';
import type { OpenedImage } from './open-image.js';

/** asynchronous, so that a hanging device does not block the event loop */
const openAsync = promisify(open);

const BASE: Record<Mode, number> = { r: 2 ** 50, w: 2 ** 51, 'w!': 3 * 2 ** 50 };
/** the modes of other vbds that exclude a mode, as in the table of rule 8; the most important for the message first */
const REFUSES: Record<Mode, readonly Mode[]> = { r: ['w'], w: ['r', 'w', 'w!'], 'w!': [] };
/** the most loop devices on top of each other */
const LAYER_LIMIT = 8;
const EXCLUSIVE_PATIENCE_MS = 1_000;
const RETRY_MS = 20;
const { O_EXCL, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_RDWR } = constants;

type Device = Pick<OpenedImage, 'fd' | 'dev' | 'ino' | 'realPath'> & { readonly rdev: string };

/** The common file on which the range of a device is locked; see above. */
export interface CommonPlace {
  readonly fd: number;
  /** whether it is the image itself: then `fd` is the image's descriptor, not a new one */
  readonly isOwn: boolean;
  readonly first: number;
  readonly sectors: number;
  /** `MAJ:MIN` of the device and of all devices below it on the way to the file */
  readonly devs: readonly string[];
}

/**
 * Opens the common file of a device; null if it has no node in /dev or this user may not open it. The caller closes it,
 * unless it is the image itself.
 */
export async function openCommonPlace(device: Device): Promise<CommonPlace | null> {
  const range = readDeviceRange(device.rdev);
  if (range === null) return null;
  let { disk, first } = range;
  const { sectors } = range;
  const devs = [device.rdev, disk];
  for (let layer = 0; layer < LAYER_LIMIT; layer++) {
    const below = await openBelow(disk, device);
    if (below === null) break;
    first += below.first;
    if (below.disk === null) return { fd: below.fd, isOwn: false, first, sectors, devs };
    closeSync(below.fd);
    first += below.disk.first;
    disk = below.disk.disk;
    devs.push(disk);
  }
  const fd = await openNode(disk);
  if (fd === null) return null;
  const isOwn = isSameFile(fd, device);
  if (isOwn) closeSync(fd);
  return { fd: isOwn ? device.fd : fd, isOwn, first, sectors, devs };
}

interface Below {
  readonly fd: number;
  /** the first sector of the loop device in the file */
  readonly first: number;
  /** if the file is a block device: its disk, and its first sector on that disk; else null */
  readonly disk: { readonly disk: string; readonly first: number } | null;
}

/** The backing file of a loop device; null for another device, or if the file cannot be opened. */
async function openBelow(disk: string, device: Device): Promise<Below | null> {
  const loop = listLoops().find(({ devs }) => devs[0] === disk);
  if (loop === undefined) return null;
  const mounts = await readMounts('self');
  // the FUSE server may be this bus itself, or it may hang
  if (locate(mounts, loop.backingFile)?.type.startsWith('fuse')) return null;
  const known = await backingOf(loop);
  if (known === null) return null;
  const fd = await tryOpen(loop.backingFile, O_RDONLY);
  if (fd === null) return null;
  const stats = fstatSync(fd, { bigint: true });
  const first = Math.floor(loop.offsetBytes / SECTOR_BYTES);
  // the path may lead to another file by now; and the image itself does not count as below
  const isIt = deviceName(stats.dev) === known.dev && String(stats.ino) === known.ino;
  if (isIt && stats.isFile() && !isSameFile(fd, device)) return { fd, first, disk: null };
  const range = isIt && stats.isBlockDevice() ? readDeviceRange(deviceName(stats.rdev)) : null;
  if (range !== null) return { fd, first, disk: range };
  closeSync(fd);
  return null;
}

/** Opens the kernel's node of a device, /dev/NAME, for reading; null if that is not possible. */
export async function openNode(dev: string): Promise<number | null> {
  const [node] = readDeviceFamily(dev);
  const fd = node === undefined ? null : await tryOpen(`/dev/${node.name}`, O_RDONLY);
  if (fd === null) return null;
  const stats = fstatSync(fd, { bigint: true });
  if (stats.isBlockDevice() && deviceName(stats.rdev) === dev) return fd;
  closeSync(fd);
  return null;
}

function tryOpen(path: string, flags: number): Promise<number | null> {
  return openAsync(path, flags | O_NONBLOCK | O_NOCTTY).catch(() => null);
}

export function isSameFile(fd: number, { dev, ino }: Pick<OpenedImage, 'dev' | 'ino'>): boolean {
  const stats = fstatSync(fd, { bigint: true });
  return deviceName(stats.dev) === dev && String(stats.ino) === ino;
}

/** The mode by which another claim has a part of the range and excludes this mode; null if there is none. */
export function conflictingMode({ fd, first, sectors }: CommonPlace, mode: Mode): Mode | null {
  return REFUSES[mode].find((held) => isRangeLocked(fd, BASE[held] + first, sectors)) ?? null;
}

/** Whether a lock is a claim on a part of the range with that mode. */
export function isOfRange(lock: { start: number; end: number }, { first, sectors }: CommonPlace, mode: Mode): boolean {
  return lock.start < BASE[mode] + first + sectors && BASE[mode] + first <= lock.end;
}

/** @returns false if another process has a write lock there */
export function lockRange({ fd, first, sectors }: CommonPlace, mode: Mode): boolean {
  return lockRangeShared(fd, BASE[mode] + first, sectors);
}

/** Ends `lockRange` for a mode. */
export function unlockDeviceRange({ fd, first, sectors }: CommonPlace, mode: Mode): void {
  unlockRange(fd, BASE[mode] + first, sectors);
}

/**
 * Locks the range of a device without a test: for the server, as takeMarks does for the node.
 * @returns another descriptor, which keeps the lock while it is open; null if the lock is on `fd` or is not possible
 */
export async function markDevice(fd: number, realPath: string, mode: Mode): Promise<number | null> {
  const { dev, ino, rdev } = fstatSync(fd, { bigint: true });
  const device = { fd, realPath, dev: deviceName(dev), ino: String(ino), rdev: deviceName(rdev) };
  const place = await openCommonPlace(device);
  if (place === null) return null;
  lockRange(place, mode);
  return place.isOwn ? null : place.fd;
}

/** The bytes of the image's own file that may have range locks. */
export const RANGE_BYTES = { start: BASE.r, length: 3 * 2 ** 50 } as const;

/**
 * Opens the device with O_EXCL, so that the kernel lets no other process claim it or a device that overlaps it. Retries
 * for a while, because other programs may do the same for a short test.
 * @returns a descriptor that keeps the claim while it is open; null if another process has claimed the device
 */
export async function openExclusively(fd: number, mode: Mode): Promise<number | null> {
  const deadline = performance.now() + EXCLUSIVE_PATIENCE_MS;
  for (;;) {
    try {
      const access = mode === 'r' ? O_RDONLY : O_RDWR;
      return await openAsync(`/proc/self/fd/${fd}`, access | O_EXCL | O_NONBLOCK | O_NOCTTY);
    } catch (error) {
      const errno = -((error as { errno?: number }).errno ?? -E.EIO);
      if (errno !== E.EBUSY) throw new SystemCallError('open', errno);
      if (performance.now() > deadline) return null;
    }
    await delay(RETRY_MS);
  }
}
