/**
 * Finds the mounts that a word means: a directory or a link to it, a loop device, the file of a vbd or of a partition, or
 * an image.
 */
import { readFileSync, readlinkSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { type Mount, readMounts } from '../../system/proc.js';
import type { VbdInfo } from '../control/interface.js';
import { partitionNumber } from './choose-partition.js';
import { realMountpoint } from './directories.js';
import { type FileMount, listFileMounts } from './file-mounts.js';
import { filesOfPath } from './find-disk.js';

/** What is attached. */
export interface Attached {
  readonly vbds: readonly VbdInfo[];
  /** buses whose processes are gone, by directory */
  readonly deadBuses: ReadonlyMap<string, string>;
  readonly runtimeDir: string;
}

/** A mount of a file system in a vbd. */
export interface VbdMount extends FileMount {
  readonly vbd: VbdInfo | null;
  /** the name of the bus, if it is dead: nothing is known about the vbd then */
  readonly deadBus: string | null;
  /** `fusetap mount --partitions` made the directory */
  readonly isBelow: boolean;
}

/** @throws FusetapError NOT_FOUND if no vbd is mounted there */
export async function findMounts(word: string, attached: Attached): Promise<VbdMount[]> {
  const mounts = (await listFileMounts()).flatMap((mount) => ofVbd(mount, attached));
  const at = findMountpoint(await readMounts('self'), word);
  if (at !== undefined) {
    // the uppermost mount counts, whatever it is
    const found = mounts.findLast(({ id }) => id === at.id);
    if (found !== undefined) return [found];
    throw notMounted(at.mountpoint, `the mount there is of ${at.source}, not of a vbd`);
  }
  const path = resolve(word);
  if (path.startsWith('/dev/loop')) return ofDevice(path, mounts);
  const below = mountsBelow(realMountpoint(word), mounts);
  if (below.length > 0) return below;
  const files = await filesOfPath(path, attached.vbds, attached.runtimeDir);
  if (files.length === 0) throw notMounted(realMountpoint(word), 'nothing is mounted there');
  const found = mounts.filter(({ file }) => files.includes(file));
  if (found.length > 0) return found;
  throw new FusetapError('NOT_FOUND', `${named(path)} is attached, but not mounted`, {
    hint: `fusetap detach ${named(path)}`,
    path,
  });
}

function ofVbd(mount: FileMount, { vbds, deadBuses }: Attached): VbdMount[] {
  const isItsFile = ({ path, partitions }: VbdInfo): boolean =>
    path === mount.file || (partitions ?? []).some((partition) => partition.path === mount.file);
  const vbd = vbds.find(isItsFile);
  if (vbd !== undefined) return [{ ...mount, vbd, deadBus: null, isBelow: false }];
  const deadBus = deadBuses.get(dirname(mount.file));
  return deadBus === undefined ? [] : [{ ...mount, vbd: null, deadBus, isBelow: false }];
}

/** The mount on a directory, or on the target of a symbolic link. */
function findMountpoint(mounts: readonly Mount[], directory: string, links = 0): Mount | undefined {
  const path = realMountpoint(directory);
  const found = mounts.findLast(({ mountpoint }) => mountpoint === path);
  if (found !== undefined || links === MOST_LINKS) return found;
  try {
    return findMountpoint(mounts, resolve(dirname(path), readlinkSync(path)), links + 1);
  } catch {
    // it is not a link
    return undefined;
  }
}

/** the limit of the kernel */
const MOST_LINKS = 40;

function ofDevice(path: string, mounts: readonly VbdMount[]): VbdMount[] {
  const dev = readDev(basename(path));
  const found = mounts.filter(({ loop, source, dev: own }) => loop === path || source === path || own === dev);
  if (found.length > 0) return found;
  throw notMounted(path, 'no vbd is mounted from it');
}

function readDev(name: string): string | null {
  try {
    return readFileSync(`/sys/class/block/${name}/dev`, 'utf8').trim();
  } catch {
    return null;
  }
}

/** The partitions that `fusetap mount --partitions` mounted below a directory. */
function mountsBelow(directory: string, mounts: readonly VbdMount[]): VbdMount[] {
  return mounts.flatMap((mount) => {
    const partition = mount.vbd?.partitions?.find(({ path }) => path === mount.file);
    if (mount.vbd === null || partition === undefined) return [];
    const isItsPlace = mount.mountpoint === `${directory}/p${partitionNumber(mount.vbd, partition)}`;
    return isItsPlace ? [{ ...mount, isBelow: true }] : [];
  });
}

function notMounted(path: string, why: string): FusetapError {
  return new FusetapError('NOT_FOUND', `no image is mounted on ${path}: ${why}`, {
    hint: 'fusetap ls lists the attached vbds; unmount other mounts with umount(8)',
    path,
  });
}
