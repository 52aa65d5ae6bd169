/** Keeps the ram images of one command to itself: they are shared under a name that no other attach uses. */
import { FusetapError } from '../drivers/errors.js';
import { treeOf } from '../drivers/graph.js';
import { factsOf } from '../drivers/names.js';
import type { BusPlace } from '../mount/client/index.js';
import type { ListedDisk } from './listed-disk.js';

/** the longest share name is 64 characters */
const BUS_LENGTH = 32;

/** A name that no other process gives, and that says which bus has the memory. */
export function privateName({ name }: BusPlace): string {
  const random = Math.floor(Math.random() * 0x10000);
  return `${name.slice(0, BUS_LENGTH)}-${process.pid}-${random.toString(16).padStart(4, '0')}`;
}

/**
 * Gives the ram images among the disks names of their own, unless they have one. Equal disks share one, as always.
 * @param name see privateName; `.1` and so on is added
 */
export function keepPrivate(disks: readonly ListedDisk[], name: string): ListedDisk[] {
  const copied: string[] = [];
  return disks.map((disk) => {
    const { driver, image, share } = disk.request;
    if (image === null || share != null || factsOf(driver)?.sharesMemory !== true) return disk;
    const tree = JSON.stringify(treeOf(disk.request));
    if (!copied.includes(tree)) copied.push(tree);
    return { ...disk, request: { ...disk.request, share: `${name}.${copied.indexOf(tree) + 1}` } };
  });
}

/** @throws FusetapError USAGE if `--private` cannot be fulfilled */
export function checkPrivate(disks: readonly ListedDisk[], { share }: { share?: string }): void {
  if (share !== undefined) {
    throw new FusetapError('USAGE', `--private and --share ${share} contradict each other`, {
      hint: 'give one of them',
    });
  }
  const other = disks.find(({ request }) => {
    const { sharesMemory = false, ownMemory = false } = factsOf(request.driver) ?? {};
    return !sharesMemory && !ownMemory;
  });
  if (other === undefined) return;
  throw new FusetapError('USAGE', `--private: driver ${other.request.driver} shares no memory`, {
    hint: 'omit --private, or use the driver ram',
  });
}
