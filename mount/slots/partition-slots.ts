/** Xen's slots of partitions: xvda1 (51713) belongs to xvda (51712). */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { findSlot, type Slot, vdevOfSlot } from './slots.js';

const DISK = /^(?:xvd|hd|sd)[a-z]+$/;
const PARTITION = /^((?:xvd|hd|sd)[a-z]+)[0-9]+$/;

/** The slot of a disk's partition; null if a disk of this kind has no partition of that number. */
export function partitionSlot(disk: Slot, number: number): Slot | null {
  const vdev = `${disk.vdev}${number}`;
  const slot = findSlot(vdev);
  return slot === null ? null : { slot, vdev };
}

/**
 * The slots of all possible partitions of a disk.
 * @throws FusetapError USAGE if the slot is not that of a whole disk
 */
export function partitionSlots(disk: Slot): Slot[] {
  if (!DISK.test(disk.vdev)) {
    throw new FusetapError('USAGE', `${quoted(disk.vdev)} is not the slot of a whole disk: it has no partitions`, {
      hint: 'choose one as xvda, or omit --partitions',
    });
  }
  const slots: Slot[] = [];
  for (let slot = partitionSlot(disk, 1); slot !== null; slot = partitionSlot(disk, slots.length + 1)) slots.push(slot);
  return slots;
}

/** The slot of the disk whose partition has this slot; null if it is not the slot of a partition. */
export function diskSlotOf(slot: number): number | null {
  const [, disk] = PARTITION.exec(vdevOfSlot(slot)) ?? [];
  return disk === undefined ? null : findSlot(disk);
}
