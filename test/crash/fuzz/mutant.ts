/**
 * Uses a damaged image: what its driver does must end with success, or with an error that a user can read.
 *
 *      read-only: open, read all over, extents, check ─► nothing is written
 *      writing:   repair, open, write, zero, flush, close ─► what was not written reads as before
 */

import type { Disk } from '../../../drivers/disk.js';
import { FusetapError } from '../../../drivers/errors.js';
import { Random } from '../../../scripts/lib/torture/second-faults/random.js';
import { Life } from '../life.js';
import { mix } from '../situations.js';
import { type Openable, open, repair } from '../subject.js';
import { copyFiles, type Files, fileOf } from '../tape.js';
import type { FuzzImage } from './images.js';
import { mutate } from './mutate.js';

const MIB = 1 << 20;
/** more memory than this for a small image comes from a number in it */
const MOST_MEMORY = 96 * MIB;
const MOST_GROWTH = 64 * MIB;
const MOST_MESSAGE = 600;
/** how much is read from the start of a disk */
const SAMPLE = MIB;

export interface MutantReport {
  /** how many of the steps ended with an error, as they may */
  readonly refused: number;
  readonly text: string;
}

/** @throws Error that says what went wrong, and what was changed in the image */
export async function tryMutant(image: FuzzImage, seed: number): Promise<MutantReport> {
  const random = new Random(mix(seed));
  const { image: file, text } = mutate(fileOf(image.files, 'file'), image.regions, random);
  if (!random.isOneIn(4)) image.seal?.(file);
  const trial = new MutantTrial(image, { ...image.files, file }, random);
  try {
    await trial.readOnly();
    if (random.isOneIn(2)) await trial.writing();
    return { refused: trial.refused, text };
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    throw new Error(`${image.name}, mutant ${seed} (${text}): ${what}`, { cause: error });
  }
}

class MutantTrial {
  refused = 0;
  readonly #subject: Openable;
  readonly #files: Files;
  readonly #knowsUsers: boolean;
  readonly #random: Random;

  constructor(image: FuzzImage, files: Files, random: Random) {
    this.#subject = { driver: image.driver, files };
    this.#files = files;
    this.#knowsUsers = image.knowsUsers ?? true;
    this.#random = random;
  }

  async readOnly(): Promise<void> {
    const life = new Life({ files: copyFiles(this.#files) });
    await this.#step('needs', async () => {
      const disks = { file: life.disk('file', { readOnly: true }) };
      await this.#subject.driver.needs?.({ files: {}, disks, options: {}, name: 'disk', absent: [] });
    });
    const disk = await this.#step('open', () => open(life, this.#subject, { readOnly: true }));
    if (disk !== null) await this.#readAllOver(disk);
    await this.#step('close', async () => disk?.close());
    if (life.tape.length > 0) throw new Error('an image that is open for reading was changed');
  }

  async writing(): Promise<void> {
    const files = copyFiles(this.#files);
    const before = fileOf(files, 'file').size;
    const isSound = await this.#step('repair', () => repair(new Life({ files }), this.#subject));
    if (isSound === null) return;
    const disk = await this.#step('open for writing', () => open(new Life({ files }), this.#subject));
    if (disk === null) return;
    const old = await this.#sample(disk);
    for (let count = 0; count < 6; count++) await this.#change(disk, old);
    const now = await this.#sample(disk);
    await this.#step('close', () => disk.close());
    if (fileOf(files, 'file').size > before + MOST_GROWTH) {
      throw new Error(`the image grew from ${before} to ${fileOf(files, 'file').size} bytes`);
    }
    const lost = [...old.keys()].find((at) => now.has(at) && !now.get(at)?.equals(old.get(at) as Buffer));
    if (lost !== undefined && this.#knowsUsers)
      throw new Error(`a write to another place has changed the sector at byte ${lost}`);
  }

  /** A change somewhere; the sectors that it touches are not compared any more. */
  async #change(disk: Disk, old: Map<number, Buffer>): Promise<void> {
    const offset = this.#offset(disk);
    const length = Math.min(disk.size - offset, 1 + this.#random.below(5000));
    for (const at of old.keys()) if (at < offset + length && offset < at + SECTOR) old.delete(at);
    const kind = this.#random.below(4);
    await this.#step('change', async () => {
      if (kind === 0) await disk.flush();
      else if (kind === 1) await disk.zero(offset, length, { punch: true });
      else await disk.write(Buffer.alloc(length, 0x77), offset);
    });
  }

  /** The first sectors of a disk, as far as they can be read. */
  async #sample(disk: Disk): Promise<Map<number, Buffer>> {
    const sectors = new Map<number, Buffer>();
    for (let at = 0; at + SECTOR <= Math.min(disk.size, SAMPLE / 8); at += SECTOR) {
      const sector = Buffer.alloc(SECTOR);
      const isRead = await this.#step('read', async () => (await disk.read(sector, at)) === SECTOR);
      if (isRead === true) sectors.set(at, sector);
    }
    return sectors;
  }

  async #readAllOver(disk: Disk): Promise<void> {
    const chunk = Buffer.alloc(64 * 1024);
    for (let at = 0; at < Math.min(disk.size, SAMPLE); at += chunk.length) {
      await this.#step('read', () => disk.read(chunk, at));
    }
    for (let count = 0; count < 10; count++) {
      await this.#step('read', () => disk.read(chunk.subarray(0, 1 + this.#random.below(9000)), this.#offset(disk)));
    }
    await this.#step('extents', () => disk.extents(0, Math.min(disk.size, 1 << 30)));
    await this.#step('extents', () => disk.extents(this.#offset(disk), MIB));
  }

  #offset(disk: Disk): number {
    const { size } = disk;
    return this.#random.pick([
      this.#random.below(Math.min(size, SAMPLE)),
      Math.max(0, size - 1 - this.#random.below(70_000)),
    ]);
  }

  /** @returns null if it was refused with a proper error */
  async #step<Result>(name: string, work: () => Promise<Result>): Promise<Result | null> {
    const before = memory();
    try {
      return await work();
    } catch (error) {
      this.refused++;
      checkError(name, error);
      return null;
    } finally {
      const grown = memory() - before;
      // biome-ignore lint/correctness/noUnsafeFinally: a fault of the driver, whatever else happened
      if (grown > MOST_MEMORY) throw new Error(`${name} took ${Math.round(grown / MIB)} MiB of memory`);
    }
  }
}

const SECTOR = 512;

function memory(): number {
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

function checkError(name: string, error: unknown): void {
  if (!(error instanceof FusetapError)) throw new Error(`${name} fails with ${String(error)}`, { cause: error });
  const { message } = error;
  if (message.includes('\n') || message.length > MOST_MESSAGE || message === '') {
    throw new Error(`${name} fails with a message that is no line: ${JSON.stringify(message)}`);
  }
}
