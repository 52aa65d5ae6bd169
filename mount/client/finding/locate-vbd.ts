/**
 * Finds the vbd that a word means: a vdev, a slot number, the path of its file, or the path of its image if only one
 * vbd has that image.
 */
import { type Stats, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import type { VbdInfo } from '../control/interface.js';
import { realPlace } from '../runtime/bus-place.js';
import { refusePartition } from '../slots/refuse-partition.js';
import { findSlot } from '../slots/slots.js';
import { BY_SLOT } from '../transport/by-slot.js';

/**
 * Finds a vbd among the given ones.
 * @param where the name of the place in messages, for example `bus 0`
 * @throws FusetapError NOT_FOUND; USAGE for an image that several vbds have, and for a partition
 */
export function findVbd(word: string, vbds: readonly VbdInfo[], where: string): VbdInfo {
  const slot = findSlot(word);
  const inSlot = slot === null ? [] : vbds.filter((vbd) => vbd.slot === slot);
  // `xvda` means the vdev, even if there is such a file; `/dev/xvda` may be an image, and is else Xen's name of a vdev
  const atPath = isPath(word) || slot === null ? byPath(word, vbds) : [];
  const found = atPath.length > 0 ? atPath : inSlot;
  const [first, second] = found;
  if (first === undefined) {
    refuseIfPartition(word, slot, vbds, where);
    throw new FusetapError('NOT_FOUND', `no such vbd: ${quoted(word)} on ${where}`, {
      hint: 'fusetap ls lists what is attached',
    });
  }
  if (second !== undefined) {
    const names = found.map((vbd) => `${vbd.vdev} of bus ${vbd.bus}`).join(', ');
    throw new FusetapError('USAGE', `several vbds have the image ${quoted(word)}: ${names}`, {
      hint: 'give the vdev',
    });
  }
  return first;
}

function refuseIfPartition(word: string, slot: number | null, vbds: readonly VbdInfo[], where: string): void {
  const path = isPath(word) ? busPath(word) : null;
  for (const vbd of vbds) {
    const found = vbd.partitions?.find(
      (partition) => partition.path === path || (path === null && partition.slot === slot),
    );
    if (found !== undefined) throw refusePartition(found.vdev, vbd.vdev, where);
  }
}

/** The path as a bus knows it: without symbolic links. Does not touch the bus itself, because it may hang. */
function busPath(word: string): string {
  const path = resolve(word);
  const directory = dirname(path);
  const bus = basename(directory) === BY_SLOT ? dirname(directory) : directory;
  return join(realPlace(dirname(bus)), path.slice(dirname(bus).length));
}

/** Whether the word is a path. A path can name a vbd on another bus. */
export function isPath(word: string): boolean {
  return word.includes('/');
}

function byPath(word: string, vbds: readonly VbdInfo[]): VbdInfo[] {
  const path = resolve(word);
  const onBus = busPath(word);
  const file = vbds.filter((vbd) => onBus === vbd.path || onBus === bySlotPath(vbd));
  if (file.length > 0) return file;
  const named = vbds.filter((vbd) => vbd.image === path);
  if (named.length > 0) return named;
  // another path to the same image
  const stats = identify(path);
  return stats === undefined ? [] : vbds.filter((vbd) => vbd.image !== null && isSame(identify(vbd.image), stats));
}

/** The link to its file in by-slot, which every bus has for guests that only know numbers. */
function bySlotPath({ path, slot }: VbdInfo): string {
  return join(dirname(path), BY_SLOT, String(slot));
}

function identify(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

function isSame(one: Stats | undefined, other: Stats): boolean {
  return one !== undefined && one.dev === other.dev && one.ino === other.ino;
}
