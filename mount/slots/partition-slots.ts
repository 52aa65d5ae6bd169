/** Xen's places of partitions: xvda1 (51713) belongs to xvda (51712). */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { findSlot, type Slot, vdevOfSlot } from './slots.js';

const DISK = /^(?:xvd|hd|sd)[a-z]+$/;
const PARTITION = /^((?:xvd|hd|sd)[a-z]+)[0-9]+$/;

/** The place of a disk's partition; null where such a disk has none of that number. */
export function partitionSlot(disk: Slot, number: number): Slot | null {
  const vdev = `${disk.vdev}${number}`;
  const slot = findSlot(vdev);
  return slot === null ? null : { slot, vdev };
}

/**
 * All places of a disk's partitions.
 * @throws FusetapError USAGE for a place that is no whole disk's
 */
export function partitionSlots(disk: Slot): Slot[] {
  if (!DISK.test(disk.vdev)) {
    throw new FusetapError('USAGE', `${quoted(disk.vdev)} is no place of a whole disk: it has no partitions`, {
      hint: 'choose one as xvda, or leave out --partitions',
    });
  }
  const slots: Slot[] = [];
  for (let slot = partitionSlot(disk, 1); slot !== null; slot = partitionSlot(disk, slots.length + 1)) slots.push(slot);
  return slots;
}

/** The slot of the disk that a place belongs to as a partition; null where it is none. */
export function diskSlotOf(slot: number): number | null {
  const [, disk] = PARTITION.exec(vdevOfSlot(slot)) ?? [];
  return disk === undefined ? null : findSlot(disk);
}
