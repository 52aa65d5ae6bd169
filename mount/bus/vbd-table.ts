/**
 * What is attached to a bus, by slot, and the slots that attaches under way have taken already.
 */
import { FusetapError, type Holder } from '../../drivers/errors.js';
import type { OpenedImage } from './open-image.js';
import { firstFreeXvd, parseSlot, type Slot } from './slots.js';
import type { Vbd } from './vbd.js';

export class VbdTable {
  readonly #bus: string;
  readonly #bySlot = new Map<number, Vbd>();
  readonly #reserved = new Set<number>();

  constructor(bus: string) {
    this.#bus = bus;
  }

  /** in the order of their attaches */
  all(): Vbd[] {
    return [...this.#bySlot.values()];
  }

  sorted(): Vbd[] {
    return this.all().sort((a, b) => a.slot - b.slot);
  }

  /** The images that are written to, one for each disk below them. */
  writtenImages(): OpenedImage[] {
    const byDevice = new Map<string, OpenedImage>();
    for (const { image, mode } of this.#bySlot.values()) {
      if (image !== null && mode !== 'r') byDevice.set(image.kind === 'block' ? image.path : `${image.dev}`, image);
    }
    return [...byDevice.values()];
  }

  get isEmpty(): boolean {
    return this.#bySlot.size === 0 && this.#reserved.size === 0;
  }

  has(vbd: Vbd): boolean {
    return this.#bySlot.get(vbd.slot) === vbd;
  }

  /** @throws FusetapError NOT_FOUND */
  find(vdev: string): Vbd {
    const vbd = this.#bySlot.get(parseSlot(vdev).slot);
    if (vbd !== undefined) return vbd;
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
   * Takes the slot of a vdev, or the first free one, until `unreserve`.
   * @throws FusetapError USAGE where there is no such vdev, BUSY where its slot is taken
   */
  reserveFree(vdev: string | null): Slot {
    const taken = new Set([...this.#bySlot.keys(), ...this.#reserved]);
    const place = parseSlot(vdev ?? firstFreeXvd(taken));
    if (taken.has(place.slot)) throw this.#taken(place);
    this.#reserved.add(place.slot);
    return place;
  }

  /** Keeps the slot of a vbd that is about to be taken away, so that it can be put back. */
  reserve(slot: number): void {
    this.#reserved.add(slot);
  }

  unreserve(slot: number): void {
    this.#reserved.delete(slot);
  }

  #taken({ slot, vdev }: Slot): FusetapError {
    const bus = this.#bus;
    const holder: Holder = { bus, vdev: this.#bySlot.get(slot)?.vdev ?? vdev };
    return new FusetapError('BUSY', `slot ${slot} (${holder.vdev}) of bus ${bus} is taken`, {
      hint: `choose another vdev, or fusetap detach --bus ${bus} ${holder.vdev}`,
      holders: [holder],
    });
  }
}
