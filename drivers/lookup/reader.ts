/** Reads a disk whose parts are looked up: from the image or its data file, the backing file, decoded parts, or zeros. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { allDone } from '../all-done.js';
import type { Disk } from '../disk.js';
import type { Change, LocateOptions, MapFile, Place, Places } from '../driver.js';
import { absent, fromBelow, unknown } from '../map/places.js';
import { windowOf } from '../segments/one-segment.js';
import type { Finder, Part } from './part.js';

/** how much of the disk is described by one call: 1 GiB of clusters of 64 KiB */
const TOLD_UNITS = 2 ** 14;
/** in about so many places */
const TOLD = 1024;

export interface ReaderParts<P extends Part> {
  /** of the disk */
  readonly size: number;
  /** what a table describes by one entry or bit: a block, a cluster, a subcluster */
  readonly unitBytes: number;
  readonly finder: Finder<P>;
  /** the image, or its data file */
  readonly data: Disk;
  readonly backing: Disk | null;
  /** Fills a buffer with the bytes of a part that is `encoded` or in `memory`; default: there are none */
  decode?(part: P, buffer: Uint8Array): Promise<void>;
  /** whether data may lie in holes of its file */
  mayHaveHoles(): Promise<boolean>;
}

export class Reader<P extends Part> {
  readonly finder: Finder<P>;
  /** where bytes are */
  readonly places: Places;
  /** the image or its data file is one run of a file: file 0 of the places */
  readonly hasOwnFile: boolean;
  readonly #size: number;
  readonly #toldBytes: number;
  readonly #data: Disk;
  readonly #backing: Disk | null;
  readonly #decode: NonNullable<ReaderParts<P>['decode']>;
  readonly #askForHoles: () => Promise<boolean>;
  /** null: nobody has asked yet */
  #mayHaveHoles: Promise<boolean> | null = null;

  constructor({ size, unitBytes, finder, data, backing, decode = cannotDecode, mayHaveHoles }: ReaderParts<P>) {
    this.finder = finder;
    this.#size = size;
    this.#toldBytes = TOLD_UNITS * unitBytes;
    this.#data = data;
    this.#backing = backing;
    this.#decode = decode;
    this.#askForHoles = mayHaveHoles;
    const own = ownFile(data);
    this.hasOwnFile = own !== undefined;
    this.places = {
      files: [...(own === undefined ? [] : [own]), ...(backing?.places.files ?? [])],
      locate: (...range) => this.#locateAll(...range),
    };
  }

  get hasBacking(): boolean {
    return this.#backing !== null;
  }

  /** Whether a part that is `none` is all zeros: the backing file has no bytes there. */
  isEmpty(offset: number): boolean {
    return this.#backing === null || offset >= this.#backing.size;
  }

  /** Whether a part is all zeros, as its tables tell. */
  isZeros({ kind, offset }: Pick<Part, 'kind' | 'offset'>): boolean {
    return kind === 'zeros' || (kind === 'none' && this.isEmpty(offset));
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    await this.readFound(await this.finder.find(offset, buffer.byteLength), buffer, offset);
  }

  /** @param found what the range of the buffer is */
  async readFound(found: readonly P[], buffer: Uint8Array, offset: number): Promise<void> {
    const reads = found.map((part) => {
      return this.#readPart(part, buffer.subarray(part.offset - offset, part.offset - offset + part.length));
    });
    if (reads.length === 1) return await reads[0];
    // all have ended when this rejects: the caller may use the buffer again
    await allDone(reads);
  }

  async #readPart(part: P, buffer: Uint8Array): Promise<void> {
    const { kind, offset, place } = part;
    if (kind === 'zeros') buffer.fill(0);
    else if (kind === 'data') await readPadded(this.#data, buffer, place);
    else if (kind === 'none') {
      if (this.#backing === null) buffer.fill(0);
      else await readPadded(this.#backing, buffer, offset);
    } else await this.#decode(part, buffer);
  }

  /** What a range is; perhaps of less than all of it. */
  #describe(offset: number, length: number): Promise<P[]> {
    return this.finder.find(offset, Math.min(length, this.#toldBytes, this.#size - offset));
  }

  async changes(offset: number, length: number): Promise<Change[]> {
    for (let at = offset; at < offset + length; at += this.#toldBytes) {
      await nextTurn();
      const found = await this.#describe(at, offset + length - at);
      const changes = found.flatMap(({ kind, offset: from, length: bytes }): Change[] => {
        return kind === 'none' ? [] : [{ offset: from, length: bytes, kind: kind === 'zeros' ? 'zeros' : 'data' }];
      });
      if (changes.length > 0) return joined(changes);
    }
    return [];
  }

  async #locateAll(offset: number, length: number, { holes = false }: LocateOptions = {}): Promise<Place[]> {
    if (holes) await nextTurn();
    if (holes) this.#mayHaveHoles ??= this.#askForHoles();
    const looksForHoles = holes && (await this.#mayHaveHoles) === true;
    const places: Place[] = [];
    for (const part of await this.#describe(offset, length)) {
      places.push(...(await this.#locatePart(part, { holes, looksForHoles })));
      const last = places.at(-1) as Place;
      if (places.length > TOLD || last.offset + last.length < part.offset + part.length) break;
    }
    return places;
  }

  /** Describes a part; perhaps less than all of it. */
  async #locatePart(part: Part, options: { holes: boolean; looksForHoles: boolean }): Promise<readonly Place[]> {
    const { kind, offset, length, place } = part;
    if (kind === 'none') return await this.locateBelow(offset, length, options);
    if (kind !== 'data') return [this.placeOf(part)];
    const inside = Math.min(length, Math.max(0, this.#data.size - place));
    if (inside === 0) return [{ ...this.#own(offset, length, place), state: 'zeros', detail: 'allocated' }];
    if (!options.looksForHoles) return [this.placeOf({ ...part, length: inside })];
    const found = await this.#data.places.locate(place, inside, { holes: true });
    return found.map((below): Place => {
      const own = this.#own(offset + below.offset - place, below.length, below.offset);
      return below.state === 'zeros' ? { ...own, state: 'zeros', detail: 'allocated' } : own;
    });
  }

  /** Data at a place in the image or the data file. */
  #own(offset: number, length: number, place: number): Place {
    if (!this.hasOwnFile) return unknown(offset, length);
    return { offset, length, state: 'data', file: 0, place, depth: 0 };
  }

  /** The place of a part that is not `none`. */
  placeOf({ kind, offset, length, place, hasPlace }: Part): Place {
    if (kind === 'encoded') return { ...unknown(offset, length), detail: 'compressed' };
    if (kind === 'memory') return unknown(offset, length);
    const own = this.#own(offset, length, place);
    if (kind === 'zeros') return { ...own, state: 'zeros', ...(!hasPlace && { file: null }) };
    // what is beyond the end of the file reads as zeros, which threads do not know
    return place + length <= this.#data.size ? own : unknown(offset, length);
  }

  /** Where the bytes of a part that is `none` are; may describe less of it. */
  async locateBelow(offset: number, length: number, options?: LocateOptions): Promise<readonly Place[]> {
    const backing = this.#backing;
    if (backing === null || offset >= backing.size) return [absent(offset, length)];
    const found = await backing.places.locate(offset, length, options);
    return found.map((place) => fromBelow(place, this.hasOwnFile ? 1 : 0));
  }
}

async function cannotDecode({ kind }: Part): Promise<void> {
  throw new Error(`a part is ${kind}, and the format decodes none`);
}

/** Reads bytes; those beyond the end of the disk are zeros. */
async function readPadded(disk: Disk, buffer: Uint8Array, offset: number): Promise<void> {
  const n = offset < disk.size ? await disk.read(buffer, offset) : 0;
  if (n < buffer.byteLength) buffer.fill(0, n);
}

/** The file with the bytes of an image, if they are one run of it. */
export function ownFile(disk: Disk): MapFile | undefined {
  const window = windowOf(disk);
  if (window === undefined) return undefined;
  const { fd, kind, readOnly, durable, start } = window;
  return { fd, kind, readOnly, durable, delta: start };
}

function joined(changes: readonly Change[]): Change[] {
  const all: Change[] = [];
  for (const change of changes) {
    const last = all.at(-1);
    const goesOn = last !== undefined && last.kind === change.kind && last.offset + last.length === change.offset;
    if (goesOn) all[all.length - 1] = { ...last, length: last.length + change.length };
    else all.push(change);
  }
  return all;
}
