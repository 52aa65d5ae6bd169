/** Reads the disk of a qcow2 image: from the image or its data file, the backing file, compressed clusters, or zeros. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Disk } from '../../disk.js';
import type { Change, Extent, MapFile, Place, Places } from '../../driver.js';
import { windowOf } from '../../segments/one-segment.js';
import type { DecodedCache } from './decoded-cache.js';
import { Finder, type Found } from './find.js';
import type { L2Tables } from './l2-tables.js';

/** how much of the disk is described by one call */
const TOLD_BYTES = 2 ** 30;

export interface ReaderParts {
  /** of the disk */
  readonly size: number;
  readonly tables: L2Tables;
  /** the image, or its data file */
  readonly data: Disk;
  readonly backing: Disk | null;
  readonly decoded: DecodedCache;
}

export class Reader {
  readonly finder: Finder;
  readonly #size: number;
  readonly #data: Disk;
  readonly #backing: Disk | null;
  readonly #decoded: DecodedCache;

  constructor({ size, tables, data, backing, decoded }: ReaderParts) {
    this.finder = new Finder(tables);
    this.#size = size;
    this.#data = data;
    this.#backing = backing;
    this.#decoded = decoded;
  }

  /** Whether a part that is `none` is all zeros: the backing file has no bytes there. */
  isEmpty(offset: number): boolean {
    return this.#backing === null || offset >= this.#backing.size;
  }

  async read(buffer: Uint8Array, offset: number): Promise<void> {
    await this.readFound(await this.finder.find(offset, buffer.byteLength), buffer, offset);
  }

  /** @param found what the range of the buffer is */
  async readFound(found: readonly Found[], buffer: Uint8Array, offset: number): Promise<void> {
    const reads = found.map((part) => {
      return this.#readPart(part, buffer.subarray(part.offset - offset, part.offset - offset + part.length));
    });
    if (reads.length === 1) return await reads[0];
    // all have ended when this rejects: the caller may use the buffer again
    for (const done of await Promise.allSettled(reads)) if (done.status === 'rejected') throw done.reason;
  }

  async #readPart({ kind, offset, place, entry }: Found, buffer: Uint8Array): Promise<void> {
    if (kind === 'zeros') buffer.fill(0);
    else if (kind === 'data') await readPadded(this.#data, buffer, place);
    else if (kind === 'none') {
      if (this.#backing === null) buffer.fill(0);
      else await readPadded(this.#backing, buffer, offset);
    } else {
      const cluster = await this.#decoded.read(entry);
      buffer.set(cluster.subarray(offset - place, offset - place + buffer.byteLength));
    }
  }

  async extents(offset: number, length: number): Promise<Extent[]> {
    await nextTurn();
    const extents: Extent[] = [];
    for (const { kind, offset: at, length: bytes } of await this.#describe(offset, length)) {
      if (kind === 'none' && !this.isEmpty(at)) extents.push(...(await this.#extentsBelow(at, bytes)));
      else extents.push({ offset: at, length: bytes, hole: kind === 'none' || kind === 'zeros' });
    }
    return extents;
  }

  async #extentsBelow(offset: number, length: number): Promise<Extent[]> {
    const backing = this.#backing as Disk;
    const inside = Math.min(length, backing.size - offset);
    const extents = await backing.extents(offset, inside);
    if (inside < length) extents.push({ offset: offset + inside, length: length - inside, hole: true });
    return extents;
  }

  /** What a range is; perhaps of less than all of it. */
  #describe(offset: number, length: number): Promise<Found[]> {
    return this.finder.find(offset, Math.min(length, TOLD_BYTES, this.#size - offset));
  }

  async changes(offset: number, length: number): Promise<Change[]> {
    for (let at = offset; at < offset + length; at += TOLD_BYTES) {
      await nextTurn();
      const found = await this.#describe(at, offset + length - at);
      const changes = found.flatMap(({ kind, offset: from, length: bytes }): Change[] => {
        return kind === 'none' ? [] : [{ offset: from, length: bytes, kind: kind === 'zeros' ? 'zeros' : 'data' }];
      });
      if (changes.length > 0) return joined(changes);
    }
    return [];
  }

  /** Where bytes are, for maps; undefined if threads cannot read the image. */
  places(): Places | undefined {
    const own = ownFile(this.#data);
    if (own === undefined) return undefined;
    return {
      files: [own, ...(this.#backing?.places?.files ?? [])],
      locate: (offset, length) => this.#locate(offset, length),
    };
  }

  async #locate(offset: number, length: number): Promise<Place[]> {
    const places: Place[] = [];
    for (const part of await this.#describe(offset, length)) {
      if (part.kind === 'none') places.push(...(await this.locateBelow(part.offset, part.length)));
      else places.push(this.placeOf(part));
    }
    return places;
  }

  /** The place of a part that is not `none`. */
  placeOf({ kind, offset, length, place }: Found): Place {
    if (kind === 'zeros') return { offset, length, state: 'zeros', file: 0, place: 0 };
    // what is beyond the end of the file reads as zeros, which threads do not know
    const isInside = kind === 'data' && place + length <= this.#data.size;
    return { offset, length, state: isInside ? 'data' : 'unknown', file: 0, place };
  }

  /** Where the bytes of a part that is `none` are. */
  async locateBelow(offset: number, length: number): Promise<Place[]> {
    const backing = this.#backing;
    const inside = backing === null ? 0 : Math.max(0, Math.min(length, backing.size - offset));
    const found: Place[] = [];
    for (let at = offset; at < offset + inside; ) {
      const below = (await backing?.places?.locate(at, offset + inside - at)) ?? [];
      found.push(...below.map((place) => ({ ...place, file: place.file + 1 })));
      const last = found.at(-1);
      if (below.length === 0 || last === undefined) return found;
      at = last.offset + last.length;
    }
    if (inside < length) {
      found.push({ offset: offset + inside, length: length - inside, state: 'zeros', file: 0, place: 0 });
    }
    return found;
  }
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
