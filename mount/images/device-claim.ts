/**
 * Rule 8 for block devices. A device may have many nodes, and its bytes may be those of other devices: it is its number
 * and its range. So besides the locks on the node that was opened (claim-image.ts), a claim locks the range on one file
 * that all who have the same bytes come to:
 *
 *      partition ──► its disk, from its first sector on ──► the disk's node that the kernel made, /dev/NAME
 *                                                      └──► of a loop device the file below, from its offset on
 *
 *      lock on the bytes BASE[mode] + first … BASE[mode] + last sector     the range is attached with that mode
 *
 * Partitions that do not overlap may be attached side by side; a partition and its disk, two nodes of one device, or two
 * loop devices over one file are the same bytes. A claim for writing also opens the device with O_EXCL: the kernel then lets
 * nobody else claim the disk or the partition, in whichever container, be it a mount, mkfs or another fusetap.
 */
import { closeSync, constants, fstatSync, open } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { E, isRangeLocked, lockRangeShared, SystemCallError } from '../../system/libc.js';
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

/** a device that hangs, or what lies below it, keeps nobody else waiting */
const openAsync = promisify(open);

const BASE: Record<Mode, number> = { r: 2 ** 50, w: 2 ** 51, 'w!': 3 * 2 ** 50 };
/** which modes of others a mode does not go with, as in the table of rule 8; what says most first */
const REFUSES: Record<Mode, readonly Mode[]> = { r: ['w'], w: ['r', 'w', 'w!'], 'w!': [] };
/** a loop device over a loop device over a … */
const LAYER_LIMIT = 8;
const EXCLUSIVE_PATIENCE_MS = 1_000;
const RETRY_MS = 20;
const { O_EXCL, O_NOCTTY, O_NONBLOCK, O_RDONLY, O_RDWR } = constants;

type Device = Pick<OpenedImage, 'fd' | 'dev' | 'ino' | 'realPath'> & { readonly rdev: string };

/** The file that holds a device's range for all who have the same bytes. */
export interface CommonPlace {
  readonly fd: number;
  /** whether that is the very file of the image: its descriptor, not one more */
  readonly isOwn: boolean;
  readonly first: number;
  readonly sectors: number;
  /** `MAJ:MIN` of all devices on the way there */
  readonly devs: readonly string[];
}

/**
 * Opens the place of a device; null where it cannot be: no node in /dev, or one that this user may not open. To be closed
 * unless it is the image's own.
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
  /** where the loop device begins in it, in sectors */
  readonly first: number;
  /** where it is a device itself: the disk, and where that begins in it */
  readonly disk: { readonly disk: string; readonly first: number } | null;
}

/** The file below a loop device; null for all others, and where it cannot be opened. */
async function openBelow(disk: string, device: Device): Promise<Below | null> {
  const loop = listLoops().find(({ devs }) => devs[0] === disk);
  if (loop === undefined) return null;
  const mounts = await readMounts('self');
  // its server may be this very bus, or one that hangs
  if (locate(mounts, loop.backingFile)?.type.startsWith('fuse')) return null;
  const known = await backingOf(loop);
  if (known === null) return null;
  const fd = await tryOpen(loop.backingFile, O_RDONLY);
  if (fd === null) return null;
  const stats = fstatSync(fd, { bigint: true });
  const first = Math.floor(loop.offsetBytes / SECTOR_BYTES);
  // its path may lead to another file by now; and the image itself is claimed by what it is
  const isIt = deviceName(stats.dev) === known.dev && String(stats.ino) === known.ino;
  if (isIt && stats.isFile() && !isSameFile(fd, device)) return { fd, first, disk: null };
  const range = isIt && stats.isBlockDevice() ? readDeviceRange(deviceName(stats.rdev)) : null;
  if (range !== null) return { fd, first, disk: range };
  closeSync(fd);
  return null;
}

/** The kernel's own node of a device, for reading. */
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

/** The first mode, of those that do not go with this one, by which somebody else has a part of the range. */
export function conflictingMode({ fd, first, sectors }: CommonPlace, mode: Mode): Mode | null {
  return REFUSES[mode].find((held) => isRangeLocked(fd, BASE[held] + first, sectors)) ?? null;
}

/** Whether a lock is one on a part of the range, by that mode. */
export function isOfRange(lock: { start: number; end: number }, { first, sectors }: CommonPlace, mode: Mode): boolean {
  return lock.start < BASE[mode] + first + sectors && BASE[mode] + first <= lock.end;
}

/** @returns false where somebody's write lock is in the way */
export function lockRange({ fd, first, sectors }: CommonPlace, mode: Mode): boolean {
  return lockRangeShared(fd, BASE[mode] + first, sectors);
}

/**
 * Locks the range of a device without any test: for the server, as takeMarks does it for the node.
 * @returns one more descriptor, which has the lock while it is open; null where the lock is on `fd`, or cannot be
 */
export async function markDevice(fd: number, realPath: string, mode: Mode): Promise<number | null> {
  const { dev, ino, rdev } = fstatSync(fd, { bigint: true });
  const device = { fd, realPath, dev: deviceName(dev), ino: String(ino), rdev: deviceName(rdev) };
  const place = await openCommonPlace(device);
  if (place === null) return null;
  lockRange(place, mode);
  return place.isOwn ? null : place.fd;
}

/** The part of the image's own file that range locks may be on. */
export const RANGE_BYTES = { start: BASE.r, length: 3 * 2 ** 50 } as const;

/**
 * Has the kernel let nobody else claim the device or what it overlaps. Others try that for a moment only, so it is tried for
 * a while.
 * @returns a descriptor that holds it while it is open; null where somebody else has it
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
