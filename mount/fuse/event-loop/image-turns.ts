/**
 * The images in memory that threads write, and whether they may bypass the lock of the file: the main thread's side of
 * write-turns.ts and copy-lease.ts.
 *
 *      large writes begin ──► lease taken: no other writer ──► threads copy ──► no large write for a second: given up
 *                                                                   └──► another writer comes: given up within 50 ms
 *
 * Other writers use the lock of the file. They are in other buses (copy-lease.ts finds them), or in this bus outside of
 * the threads: the kernel (passthrough), and disks and requests on the event loop.
 */
import { fstatSync } from 'node:fs';
import type { Window } from '../../../drivers/driver.js';
import { CopyLease, isWrittenByOthers, LEASE_LOOK_MS } from '../../images/copy-lease.js';
import { MAX_IMAGES, MAX_TURN_BYTES, NO_TURNS, type TurnMemory, TurnWatch } from '../thread/write-turns.js';

interface Image {
  readonly key: string;
  readonly number: number;
  /** the nodes whose windows threads serve, with their descriptors */
  readonly windows: Map<number, number>;
  /** how many writers it has besides the threads */
  others: number;
  lease: CopyLease | null;
  /** resolves when threads may copy; null without a lease */
  starting: Promise<void> | null;
  /** set while a lease is being given up */
  ending: Promise<void> | null;
}

export class ImageTurns {
  readonly #watch: TurnWatch;
  readonly #keeperPid: number;
  /** by device and inode */
  readonly #images = new Map<string, Image>();
  readonly #keys = new Map<number, string>();
  /** nodes that have other writers than threads, with the image */
  readonly #writers = new Map<number, string>();
  readonly #free = Array.from({ length: MAX_IMAGES }, (_, i) => MAX_IMAGES - 1 - i);
  #timer: NodeJS.Timeout | null = null;

  /** @param keeperPid the keeper of this bus: its own marks are not those of another writer */
  constructor(memory: TurnMemory, keeperPid: number) {
    this.#keeperPid = keeperPid;
    this.#watch = new TurnWatch(memory);
  }

  /** @returns the number of the window's image; NO_TURNS if it cannot have one, and must not be mapped */
  add(nodeId: number, { fd, start, size }: Window): number {
    if (start + size > MAX_TURN_BYTES) return NO_TURNS;
    const key = keyOf(fd);
    const image = this.#image(key);
    if (image === null) return NO_TURNS;
    image.windows.set(nodeId, fd);
    this.#keys.set(nodeId, key);
    return image.number;
  }

  /** Only when no thread serves the window. */
  remove(nodeId: number): void {
    const key = this.#keys.get(nodeId);
    if (key === undefined) return;
    this.#keys.delete(nodeId);
    const image = this.#images.get(key);
    if (image === undefined) return;
    image.windows.delete(nodeId);
    if (image.windows.size === 0) void this.#giveUp(image);
    this.#drop(image);
  }

  /** The image of a descriptor gets another writer besides the threads. Resolves when no thread copies any more. */
  async addWriter(nodeId: number, fd: number): Promise<void> {
    this.removeWriter(nodeId);
    const key = keyOf(fd);
    const image = this.#image(key);
    if (image === null) return;
    this.#writers.set(nodeId, key);
    image.others += 1;
    await this.#giveUp(image);
  }

  removeWriter(nodeId: number): void {
    const key = this.#writers.get(nodeId);
    const image = key === undefined ? undefined : this.#images.get(key);
    if (key === undefined || image === undefined) return;
    this.#writers.delete(nodeId);
    image.others -= 1;
    this.#drop(image);
  }

  /** Runs a write on the event loop to a file that threads serve too. */
  async beside<Result>(nodeId: number, write: () => Promise<Result>): Promise<Result> {
    const key = this.#keys.get(nodeId);
    const image = key === undefined ? undefined : this.#images.get(key);
    if (key === undefined || image === undefined) return await write();
    image.others += 1;
    try {
      await this.#giveUp(image);
      return await write();
    } finally {
      image.others -= 1;
      this.#drop(image);
    }
  }

  /** Large writes have begun: lets threads copy to each image that has no other writer. */
  want(): void {
    for (const image of this.#images.values()) {
      const [fd] = image.windows.values();
      if (fd === undefined || image.others > 0 || image.lease !== null || image.ending !== null) continue;
      image.lease = CopyLease.take(fd, this.#keeperPid);
      if (image.lease !== null) image.starting = this.#watch.allow(image.number);
    }
    this.#look();
  }

  /** No large write has come for a while: gives up all leases. */
  giveUpAll(): void {
    for (const image of this.#images.values()) void this.#giveUp(image);
  }

  #look(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const leased = [...this.#images.values()].filter(({ lease }) => lease !== null);
    for (const image of leased) {
      const [fd] = image.windows.values();
      if (fd === undefined || isWrittenByOthers(fd, this.#keeperPid)) void this.#giveUp(image);
    }
    if (leased.length > 0) this.#timer = setTimeout(() => this.#look(), LEASE_LOOK_MS).unref();
  }

  /** Resolves when no thread copies any more. */
  #giveUp(image: Image): Promise<void> {
    if (image.lease === null) return Promise.resolve();
    image.ending ??= this.#end(image);
    return image.ending;
  }

  async #end(image: Image): Promise<void> {
    await image.starting;
    await this.#watch.forbid(image.number);
    image.lease?.release();
    image.lease = null;
    image.starting = null;
    image.ending = null;
    this.#drop(image);
  }

  #image(key: string): Image | null {
    const known = this.#images.get(key);
    if (known !== undefined) return known;
    const number = this.#free.pop();
    if (number === undefined) return null;
    const image: Image = { key, number, windows: new Map(), others: 0, lease: null, starting: null, ending: null };
    this.#images.set(key, image);
    return image;
  }

  /** Frees the number of an unused image, but not before its lease was given up. */
  #drop(image: Image): void {
    if (image.windows.size > 0 || image.others > 0 || image.lease !== null) return;
    if (this.#images.get(image.key) !== image) return;
    this.#images.delete(image.key);
    this.#free.push(image.number);
  }
}

function keyOf(fd: number): string {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  return `${dev}:${ino}`;
}
