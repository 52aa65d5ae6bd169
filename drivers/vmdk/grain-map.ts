/**
 * The grains of a sparse extent that is written.
 *
 *      grain ──► directory ──► table: a sector │ 1: zeros │ 0: none
 *          └──► redundant directory ──► copy of the table: the same entry
 *
 * Tables with entries are in memory. A new grain is written in this order: data ──► entry of the copy ──► entry of the table
 * ──► acknowledged. So after a crash a copy may have an entry too many, and the table is right: docs/architecture.md.
 */
import type { Block, Entry, GrowingTable } from '../blocks/block-table.js';
import { EndSpace } from '../blocks/end-space.js';
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken } from '../formats/faults.js';
import { Barrier } from '../lookup/barrier.js';
import { writeAll } from '../lookup/write-all.js';
import { SECTOR_BYTES } from './descriptor.js';
import { endOfAll } from './overlaps.js';
import { bytesOf, ENTRY_BYTES, entryAt, readDirectory, readTables, type TableRow } from './read-tables.js';
import { copiesOf, HEADER_BYTES, type Region, type SparseHeader } from './sparse-header.js';
import { WriteSession } from './write-session.js';

const FORMAT = 'VMDK';
const NONE = 0;
const ZEROS = 1;
const MOST_ENTRY = 0xffff_ffff;

/** A sparse extent that may be written: see whyNotWritten. */
export interface WritableParts {
  readonly image: Disk;
  readonly header: SparseHeader;
  /** see Vmdk */
  readonly cidPlace: Region | null;
}

interface Table {
  /** in the image */
  readonly place: number;
  /** null: it has none */
  readonly copyPlace: number | null;
  /** null: all are 0 */
  entries: Buffer | null;
}

export class GrainMap implements GrowingTable {
  readonly blockBytes: number;
  readonly addsWhole = true;
  readonly addZeros?: (grain: number) => Promise<void>;
  readonly #image: Disk;
  readonly #header: SparseHeader;
  readonly #barrier: Barrier;
  readonly #session: WriteSession;
  readonly #space: EndSpace;
  /** by their index in the directory; null: it is missing */
  #tables: (Table | null)[] = [];
  /** the redundant directory; null: there is none */
  #copies: Region | null = null;
  /** space for tables: zeros that nothing refers to */
  #free: number[] = [];
  readonly #making = new Map<number, Promise<Table>>();
  /** tables that a failed write may have left different from their copies */
  readonly #doubtful = new Set<number>();
  /** after `load`: how many copies were not like their tables, and were written anew */
  corrected = 0;

  constructor({ image, header, cidPlace }: WritableParts, barrier: Barrier) {
    this.blockBytes = header.grainBytes;
    this.#image = image;
    this.#header = header;
    this.#barrier = barrier;
    this.#session = new WriteSession({ image, barrier, cidPlace });
    this.#space = new EndSpace({ image, barrier, strideBytes: header.grainBytes });
    if (header.hasZeroGrains) this.addZeros = (grain) => this.#setEntry(grain, ZEROS);
  }

  async load(): Promise<void> {
    const image = this.#image;
    const { directory, tableEntries, grainBytes, tablesEnd, descriptor } = this.#header;
    await this.#session.load();
    this.#copies = copiesOf(this.#header, image);
    this.#free = [];
    this.#doubtful.clear();
    this.corrected = 0;
    const places = await readDirectory(image, directory);
    const copyPlaces = this.#copies && (await readDirectory(image, this.#copies));
    this.#tables = Array.from(places, (sector, index) => tableAt(sector, copyPlaces?.[index] ?? null));
    const tables = this.#tables.flatMap((table) => regionsOf(table, tableEntries * ENTRY_BYTES));
    const heads = [{ offset: 0, length: HEADER_BYTES }, directory, this.#copies, descriptor];
    const regions = [...heads.filter((region) => region !== null), ...tables];
    // before any table is read: many entries may name one table
    endOfAll(regions, new Uint32Array(0), { image, grainBytes });
    const empty = this.#emptyTable();
    for await (const { index, entries } of readTables(image, this.#rows('place'), tableEntries)) {
      const table = this.#tables[index];
      if (table && !entries.equals(empty)) table.entries = Buffer.from(entries);
    }
    const end = endOfAll(regions, this.#sectorsOfGrains(), { image, grainBytes });
    const known = tablesEnd <= image.size ? Math.max(end, tablesEnd) : end;
    this.#space.start(Math.ceil(known / grainBytes) * grainBytes);
    if (copyPlaces !== null) await this.#correctCopies(copyPlaces);
  }

  #emptyTable(): Buffer {
    return Buffer.alloc(this.#header.tableEntries * ENTRY_BYTES);
  }

  *#rows(which: 'place' | 'copyPlace'): Generator<TableRow> {
    for (const [index, table] of this.#tables.entries()) {
      const place = table?.[which] ?? null;
      if (place !== null) yield { index, place };
    }
  }

  /** The sectors of all grains that have a place. @throws FusetapError FAILED if one is not inside the image */
  #sectorsOfGrains(): Uint32Array {
    const { size, hasZeroGrains, tableEntries } = this.#header;
    const grains = Math.ceil(size / this.blockBytes);
    const imageBytes = this.#image.size;
    const mostNone = hasZeroGrains ? ZEROS : NONE;
    const sectors = new Uint32Array(tableEntries * this.#tables.filter((table) => table?.entries).length);
    let count = 0;
    for (const [index, table] of this.#tables.entries()) {
      const entries = table?.entries;
      if (!entries) continue;
      const first = index * tableEntries;
      // entries behind the end of the disk mean nothing
      const inside = Math.min(tableEntries, grains - first);
      for (let at = 0; at < inside; at++) {
        const sector = entryAt(entries, at);
        if (sector <= mostNone) continue;
        const place = sector * SECTOR_BYTES;
        const needed = Math.min(this.blockBytes, size - (first + at) * this.blockBytes);
        if (place + needed > imageBytes)
          throw broken(FORMAT, `the grain at byte ${place} is not inside its ${imageBytes} bytes`);
        sectors[count++] = sector;
      }
    }
    return sectors.subarray(0, count);
  }

  /** Makes copies like their tables. @throws FusetapError FAILED if one names other places, and nothing has crashed */
  async #correctCopies(copyPlaces: Uint32Array): Promise<void> {
    const { tableEntries } = this.#header;
    const mayBeAhead = this.#session.isUnclean;
    const wrong: number[] = [];
    const empty = this.#emptyTable();
    for await (const { index, entries } of readTables(this.#image, this.#rows('copyPlace'), tableEntries)) {
      const own = this.#tables[index]?.entries ?? empty;
      if (entries.equals(own)) continue;
      if (!mayBeAhead && namesOthers(entries, own))
        throw differs(`the copy of grain table ${index} names other places`);
      wrong.push(index);
    }
    // a server was killed before the table of a copy was there
    const lonely = [...copyPlaces.keys()].filter((index) => copyPlaces[index] !== NONE && this.#tables[index] === null);
    if (lonely.length > 0 && !mayBeAhead) throw differs(`grain table ${lonely[0]} is missing, and its copy is there`);
    for (const index of [...wrong, ...lonely]) await this.#writeWhole(index);
    this.corrected = wrong.length + lonely.length;
  }

  /** Writes a table and its copy as they are in memory. */
  async #writeWhole(index: number): Promise<void> {
    const { directory } = this.#header;
    const { place = 0, copyPlace = 0, entries = null } = this.#tables[index] ?? {};
    const bytes = entries ?? this.#emptyTable();
    if (copyPlace) await writeAll(this.#image, bytes, copyPlace);
    if (place) await writeAll(this.#image, bytes, place);
    await this.#writeEntry(directory.offset, index, place / SECTOR_BYTES);
    if (this.#copies !== null) await this.#writeEntry(this.#copies.offset, index, (copyPlace ?? 0) / SECTOR_BYTES);
  }

  get isUnclean(): boolean {
    return this.#session.isUnclean;
  }

  get mayWriteInPlace(): boolean {
    return this.#session.hasBegun;
  }

  begin(): Promise<void> {
    return this.#session.begin();
  }

  async get(grain: number): Promise<Entry> {
    return this.peek(grain);
  }

  peek(grain: number): Entry {
    const { tableEntries, hasZeroGrains } = this.#header;
    const entries = this.#tables[Math.floor(grain / tableEntries)]?.entries;
    const entry = entries ? entryAt(entries, grain % tableEntries) : NONE;
    if (entry === NONE) return null;
    if (entry === ZEROS && hasZeroGrains) return 'zeros';
    return { place: entry * SECTOR_BYTES, present: null } satisfies Block;
  }

  async allocate(): Promise<number> {
    const place = await this.#space.take();
    if ((place + this.blockBytes) / SECTOR_BYTES <= MOST_ENTRY) return place;
    throw new FusetapError('NO_SPACE', 'a sparse VMDK cannot be larger than 2 TiB', { errno: 28 });
  }

  giveBack(place: number): void {
    this.#space.giveBack(place);
  }

  async add(grain: number, place: number): Promise<void> {
    await this.#setEntry(grain, place / SECTOR_BYTES);
  }

  async mark(): Promise<void> {
    throw new Error('a grain of a VMDK has all its sectors');
  }

  async #setEntry(grain: number, entry: number): Promise<void> {
    const { tableEntries } = this.#header;
    const index = Math.floor(grain / tableEntries);
    const table = this.#tables[index] ?? (await this.#tableFor(index));
    const at = grain % tableEntries;
    await this.#orDoubt(index, async () => {
      if (table.copyPlace !== null) await this.#writeEntry(table.copyPlace, at, entry);
      await this.#writeEntry(table.place, at, entry);
    });
    table.entries ??= this.#emptyTable();
    table.entries.writeUInt32LE(entry, at * ENTRY_BYTES);
  }

  async #writeEntry(table: number, at: number, entry: number): Promise<void> {
    await writeAll(this.#image, bytesOf(Uint32Array.of(entry)), table + at * ENTRY_BYTES);
  }

  /** A table that is missing is made once. */
  async #tableFor(index: number): Promise<Table> {
    const making = this.#making.get(index) ?? this.#makeTable(index).finally(() => this.#making.delete(index));
    this.#making.set(index, making);
    return await making;
  }

  async #makeTable(index: number): Promise<Table> {
    const place = await this.#takeTable();
    const copies = this.#copies;
    const copyPlace = copies && (await this.#takeTable());
    await this.#orDoubt(index, async () => {
      if (copies !== null && copyPlace !== null) {
        await this.#writeEntry(copies.offset, index, copyPlace / SECTOR_BYTES);
        // no table without a copy
        await this.#barrier.pass();
      }
      await this.#writeEntry(this.#header.directory.offset, index, place / SECTOR_BYTES);
    });
    const table = { place, copyPlace, entries: null };
    this.#tables[index] = table;
    return table;
  }

  /** Remembers a table if a write of an entry fails: nobody knows what the image has then. */
  async #orDoubt(index: number, work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      this.#doubtful.add(index);
      throw error;
    }
  }

  /** Space for a table: a part of that for a grain. */
  async #takeTable(): Promise<number> {
    const { grainBytes, tableEntries } = this.#header;
    const stride = Math.ceil((tableEntries * ENTRY_BYTES) / SECTOR_BYTES) * SECTOR_BYTES;
    while (this.#free.length === 0) {
      const start = await this.allocate();
      for (let at = 0; at + stride <= grainBytes; at += stride) this.#free.push(start + at);
    }
    return this.#free.shift() as number;
  }

  async close(): Promise<void> {
    for (const index of this.#doubtful) await this.#writeWhole(index);
    this.#doubtful.clear();
    await this.#session.end();
  }
}

/** @param copySector null: tables have no copies. @throws FusetapError FAILED if the copy is missing */
function tableAt(sector: number, copySector: number | null): Table | null {
  if (sector === NONE) return null;
  if (copySector === NONE) throw broken(FORMAT, 'a grain table has no copy');
  return {
    place: sector * SECTOR_BYTES,
    copyPlace: copySector === null ? null : copySector * SECTOR_BYTES,
    entries: null,
  };
}

/** What names no place is only behind: QEMU writes the table first, and does not mark the image. */
function namesOthers(copy: Buffer, table: Buffer): boolean {
  for (let at = 0; at < copy.length / ENTRY_BYTES; at++) {
    const entry = entryAt(copy, at);
    if (entry > ZEROS && entry !== entryAt(table, at)) return true;
  }
  return false;
}

function regionsOf(table: Table | null, length: number): Region[] {
  if (table === null) return [];
  const { place, copyPlace } = table;
  return [{ offset: place, length }, ...(copyPlace === null ? [] : [{ offset: copyPlace, length }])];
}

function differs(what: string): Error {
  return broken(FORMAT, `${what}, although it was closed cleanly`);
}

/**
 * Finishes what a crash has left: makes copies like their tables.
 * @returns what was wrong, in a sentence; null: nothing
 * @throws as `load`
 */
export async function repairTables(parts: WritableParts): Promise<string | null> {
  const map = new GrainMap(parts, new Barrier(() => parts.image.flush()));
  await map.load();
  const wasUnclean = map.isUnclean;
  if (map.corrected > 0) await parts.image.flush();
  await map.close();
  if (map.corrected > 0) return 'copies of its grain tables were not like the tables: they were made right';
  return wasUnclean ? 'it was not closed: its grain tables were checked' : null;
}
