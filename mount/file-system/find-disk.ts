/**
 * Finds the vbds that already have the disk that a mount asks for, so that several mounts of one image are mounts of one
 * vbd.
 *
 *      the file of a vbd or of its partition ──► that vbd
 *      an image, by any path or hard link    ──► the vbds of the image, with the same drivers, options and filters
 *      a snapshot                            ──► none: each is a disk of its own
 *      ram                                   ──► the same, but only the private copies of other mounts; or with --share,
 *                                                the vbds that share the memory of that name
 */
import { realpath, stat } from 'node:fs/promises';
import { type NodeSpec, nodesOf, treeOf } from '../../drivers/graph.js';
import { DEFAULT_DRIVER, factsOf } from '../../drivers/names.js';
import { deviceName } from '../../system/proc.js';
import { within } from '../../system/within.js';
import { hasTree } from '../client/disk-wish.js';
import { listBuses } from '../client/list-buses.js';
import type { AttachRequest, PartitionInfo, VbdInfo } from '../control/interface.js';
import { readBusRecords } from '../runtime/bus-record.js';

/** a file system that does not answer: attach reports that */
const LIMIT_MS = 8_000;

/** How the private memory of a mount is named: only mounts use it. */
export const PRIVATE_SHARE = 'mount-';

/** A vbd that has the disk, and the partition of it if that was asked for by its path. */
export interface FoundDisk {
  readonly vbd: VbdInfo;
  readonly partition: PartitionInfo | null;
}

/** The vbds that have the disk, those that are to be written first. */
export async function findDisks(request: AttachRequest, runtimeDir: string): Promise<FoundDisk[]> {
  const { image, driver, mode, options } = request;
  const tree = treeOf(request);
  // `w!` asks for a vbd of its own
  if (image === null || mode === 'w!' || hasOwnMemory(tree)) return [];
  const vbds = (await listBuses(runtimeDir)).buses.flatMap((bus) => bus.vbds);
  if (vbds.length === 0) return [];
  const file = await within(identify(image), LIMIT_MS, null);
  if (file === null) return [];
  const filters = (request.filters ?? []).map(({ name, value }) => (value === '' ? name : `${name}=${value}`));
  if (driver === DEFAULT_DRIVER && filters.length === 0 && Object.keys(options).length === 0) {
    const own = vbds.flatMap((vbd) => ofPath(vbd, file.realPath));
    if (own.length > 0) return own;
  }
  const hasImage = imageTest(file, runtimeDir);
  const found: FoundDisk[] = [];
  for (const vbd of vbds) {
    const isAlike = hasTree(vbd, tree) && (vbd.filters ?? []).join() === filters.join() && isShared(vbd, request);
    if (isAlike && (await hasImage(vbd))) found.push({ vbd, partition: null });
  }
  return found.sort((one, other) => Number(one.vbd.mode === 'r') - Number(other.vbd.mode === 'r'));
}

/** @returns whether a vbd has that file as its image */
function imageTest(file: Identified, runtimeDir: string): (vbd: VbdInfo) => Promise<boolean> {
  const identities = readIdentities(runtimeDir);
  return async (vbd) => {
    const known = identities.get(`${vbd.bus}/${vbd.vdev}`) ?? null;
    if (known !== null) return known === file.identity;
    // the image of a ram vbd is closed
    return vbd.image !== null && (await within(identify(vbd.image), LIMIT_MS, null))?.identity === file.identity;
  };
}

/** The files of the bus that a path means: the file of a vbd means its partitions too, and so does its image. */
export async function filesOfPath(path: string, vbds: readonly VbdInfo[], runtimeDir: string): Promise<string[]> {
  const file = await within(identify(path), LIMIT_MS, null);
  if (file === null || vbds.length === 0) return [];
  const own = vbds.flatMap((vbd) => ofPath(vbd, file.realPath));
  const hasImage = imageTest(file, runtimeDir);
  const all = (vbd: VbdInfo): string[] => [vbd.path, ...(vbd.partitions ?? []).map((partition) => partition.path)];
  if (own.length > 0) return own.flatMap(({ vbd, partition }) => (partition === null ? all(vbd) : [partition.path]));
  const ofImage = await Promise.all(vbds.map(async (vbd) => ((await hasImage(vbd)) ? all(vbd) : [])));
  return ofImage.flat();
}

/** Whether any vbd has the image, in whatever way. */
export async function isAttached(image: string | null, runtimeDir: string): Promise<boolean> {
  if (image === null) return false;
  const vbds = (await listBuses(runtimeDir)).buses.flatMap((bus) => bus.vbds);
  return (await filesOfPath(image, vbds, runtimeDir)).length > 0;
}

/** Whether what is written to the disk is in memory that no other vbd has. */
function hasOwnMemory(tree: NodeSpec): boolean {
  return [...nodesOf(tree).values()].some(({ driver }) => factsOf(driver)?.ownMemory === true);
}

/** Whether the memory of the vbd is the memory that the mount asks for. */
function isShared({ driver, share }: VbdInfo, request: AttachRequest): boolean {
  if (driver !== 'ram') return true;
  return typeof request.share === 'string' ? share === request.share : share?.startsWith(PRIVATE_SHARE) === true;
}

function ofPath(vbd: VbdInfo, path: string): FoundDisk[] {
  if (vbd.path === path) return [{ vbd, partition: null }];
  const partition = vbd.partitions?.find((one) => one.path === path);
  return partition === undefined ? [] : [{ vbd, partition }];
}

interface Identified {
  readonly realPath: string;
  /** in the form of bus.json */
  readonly identity: string;
}

async function identify(path: string): Promise<Identified | null> {
  try {
    const realPath = await realpath(path);
    const { dev, ino, rdev, ...stats } = await stat(realPath, { bigint: true });
    const isBlock = (stats.mode & 0o170000n) === 0o060000n;
    return { realPath, identity: isBlock ? `block:${deviceName(rdev)}` : `${deviceName(dev)}:${ino}` };
  } catch {
    return null;
  }
}

/** The identities of the images that vbds have open, by BUS/VDEV. */
function readIdentities(runtimeDir: string): Map<string, string | null> {
  return new Map(
    readBusRecords(runtimeDir).flatMap(({ bus, vbds }) =>
      vbds.map(({ vdev, identity }): [string, string | null] => [`${bus}/${vdev}`, identity]),
    ),
  );
}
