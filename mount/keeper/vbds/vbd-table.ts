/**
 * The vbds of a bus by slot, and the slots that are reserved for attaches under way.
 */
import { FusetapError, type Holder } from '../../../drivers/errors.js';
import type { OpenedImage } from '../../images/open-image.js';
import { diskSlotOf, partitionSlots } from '../../slots/partition-slots.js';
import { refusePartition } from '../../slots/refuse-partition.js';
import { firstFreeXvd, parseSlot, type Slot } from '../../slots/slots.js';
import { type Vbd, writtenFiles } from './vbd.js';

export class VbdTable {
  readonly #bus: string;
  readonly #bySlot = new Map<number, Vbd>();
  /** by slot: whether the slots of its partitions are reserved too */
  readonly #reserved = new Map<number, boolean>();

  constructor(bus: string) {
    this.#bus = bus;
  }

  /** in the order in which they were attached */
  all(): Vbd[] {
    return [...this.#bySlot.values()];
  }

  sorted(): Vbd[] {
    return this.all().sort((a, b) => a.slot - b.slot);
  }

  /** The images of vbds that may write, one for each disk below them. */
  writtenImages(): OpenedImage[] {
    const byDevice = new Map<string, OpenedImage>();
    for (const { source } of this.#bySlot.values()) {
      for (const { image } of writtenFiles(source)) {
        byDevice.set(image.kind === 'block' ? image.path : `${image.dev}`, image);
      }
    }
    return [...byDevice.values()];
  }

  get isEmpty(): boolean {
    return this.#bySlot.size === 0 && this.#reserved.size === 0;
  }

  has(vbd: Vbd): boolean {
    return this.#bySlot.get(vbd.slot) === vbd;
  }

  /** @throws FusetapError NOT_FOUND; USAGE for a partition */
  find(vdev: string): Vbd {
    const place = parseSlot(vdev);
    const vbd = this.#bySlot.get(place.slot);
    if (vbd !== undefined) return vbd;
    const disk = this.#diskOf(place.slot);
    if (disk?.partitions?.some(({ slot }) => slot === place.slot)) {
      throw refusePartition(place.vdev, disk.vdev, `bus ${this.#bus}`);
    }
    throw new FusetapError('NOT_FOUND', `no vbd ${vdev} on bus ${this.#bus}`, {
      hint: `fusetap ls --bus ${this.#bus}`,
    });
  }

  add(vbd: Vbd): void {
    this.#bySlot.set(vbd.slot, vbd);
  }

  remove(vbd: Vbd): void {
    this.#bySlot.delete(vbd.slot);
  }

  /**
   * Reserves the slot of a vdev, or the first free one, until `unreserve`.
   * @param withPartitions also all slots of its partitions: which partitions it has is not known yet, and may change
   * @throws FusetapError USAGE if there is no such vdev, BUSY if its slot is taken
   */
  reserveFree(vdev: string | null, withPartitions: boolean): Slot {
    const place = parseSlot(vdev ?? firstFreeXvd([...this.#bySlot.keys(), ...this.#reserved.keys()]));
    const places = withPartitions ? [place, ...partitionSlots(place)] : [place];
    const taken = places.find(({ slot }) => this.#isTaken(slot));
    if (taken !== undefined) throw this.#takenError(taken);
    this.#reserved.set(place.slot, withPartitions);
    return place;
  }

  #isTaken(slot: number): boolean {
    if (this.#bySlot.has(slot) || this.#reserved.has(slot)) return true;
    const disk = diskSlotOf(slot);
    return disk !== null && (this.#reserved.get(disk) === true || this.#diskOf(slot)?.partitions != null);
  }

  /** The vbd whose partition has this slot. */
  #diskOf(slot: number): Vbd | undefined {
    const disk = diskSlotOf(slot);
    return disk === null ? undefined : this.#bySlot.get(disk);
  }

  /**
   * Reserves the slots of a vbd's partitions, until `unreserve`.
   * @throws FusetapError USAGE if it is not a whole disk, BUSY if one of them is taken
   */
  reservePartitions(vbd: Vbd): void {
    if (vbd.partitions !== null) return;
    const taken = partitionSlots(vbd).find(({ slot }) => this.#isTaken(slot));
    if (taken !== undefined) throw this.#takenError(taken);
    this.#reserved.set(vbd.slot, true);
  }

  /** Reserves the slot of a vbd that is about to be removed, so that its successor gets it. */
  reserve(slot: number, withPartitions: boolean): void {
    this.#reserved.set(slot, withPartitions);
  }

  unreserve(slot: number): void {
    this.#reserved.delete(slot);
  }

  #takenError({ slot, vdev }: Slot): FusetapError {
    const bus = this.#bus;
    const owner = this.#bySlot.get(slot) ?? this.#diskOf(slot);
    const holder: Holder = { bus, vdev: owner?.vdev ?? vdev };
    return new FusetapError('BUSY', `slot ${slot} (${vdev}) of bus ${bus} is taken`, {
      hint: `choose another vdev, or fusetap detach --bus ${bus} ${holder.vdev}`,
      holders: [holder],
    });
  }
}
