/** The driver of the toy format. It is right, unless it is told to make one of the mistakes. */
import type { Disk } from '../../../drivers/disk.js';
import type { Driver, RawDisk } from '../../../drivers/driver.js';
import { readUpTo } from '../../../drivers/formats/read.js';
import { requireDisk } from '../../../drivers/image.js';
import { RangeLock } from '../../../drivers/map/range-lock.js';
import {
  COUNTS_AT,
  DIRECTORY_AT,
  DIRTY,
  FIRST_UNIT,
  type Header,
  headerBytes,
  type Mistake,
  parseHeader,
  TABLE_ENTRIES,
  tablesOf,
  UNIT,
  ZERO,
} from './format.js';

/** @param mistake default: none */
export function toyDriver(mistake?: Mistake): Driver {
  return {
    name: 'toy',
    roles: {
      file: { takes: 'disk', access: 'as-parent' },
      backing: { takes: 'disk', access: 'read', isOptional: true },
    },
    grows: true,
    async repair(context) {
      const file = requireDisk(context, 'toy');
      const toy = new ToyDisk({ file, backing: null, header: await readHeader(file), readOnly: false, mistake });
      return (await toy.repair()) ? ['The counts were made anew.'] : [];
    },
    async open(context) {
      const file = requireDisk(context, 'toy');
      const header = await readHeader(file);
      const { readOnly } = context;
      const toy = new ToyDisk({ file, backing: context.disks.backing ?? null, header, readOnly, mistake });
      if (mistake === 'reads in open') await toy.load();
      return toy.raw();
    },
  };
}

async function readHeader(file: Disk): Promise<Header> {
  return parseHeader(await readUpTo(file, 0, UNIT));
}

interface Parts {
  readonly file: Disk;
  readonly backing: Disk | null;
  readonly header: Header;
  readonly readOnly: boolean;
  readonly mistake: Mistake | undefined;
}

class ToyDisk {
  readonly #parts: Parts;
  readonly #lock = new RangeLock();
  readonly #directory: number[] = [];
  /** the entries of all tables, by unit of the disk */
  readonly #entries = new Map<number, number>();
  #counts: Buffer = Buffer.alloc(0);
  /** units of the file that nothing names, durably */
  #free: number[] = [];
  /** units that nothing names any more; they are free after a flush */
  #freed: number[] = [];
  /** entries that are not written yet */
  #unwritten: number[] = [];
  #units = 0;
  #isDirty = false;
  #wasDirty = false;
  #isLoaded = false;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  raw(): RawDisk {
    const { header, readOnly } = this.#parts;
    const reading = {
      size: header.size,
      activate: () => this.load(),
      read: (buffer: Uint8Array, offset: number) => this.#read(buffer, offset),
    };
    if (readOnly) return { ...reading, close: async () => {} };
    return {
      ...reading,
      write: async (buffer, offset, { durable }) => {
        const parts = partsOf(offset, buffer.byteLength);
        for (const part of parts) await this.#alone(part.unit, () => this.#write(part, slice(buffer, part)));
        if (durable) await this.#flush();
      },
      zero: async (offset, length, { durable }) => {
        for (const part of partsOf(offset, length)) await this.#alone(part.unit, () => this.#zero(part));
        if (durable) await this.#flush();
      },
      flush: () => this.#flush(),
      close: () => this.#close(),
    };
  }

  /** Reads all tables. */
  async load(): Promise<void> {
    if (this.#isLoaded) return;
    this.#isLoaded = true;
    const { file, header, mistake } = this.#parts;
    if (mistake !== 'keeps its size') await file.growth?.measure();
    // after a power cut the file may end in a unit, which counts as not there
    this.#units = Math.floor(file.size / UNIT);
    this.#counts = await readUpTo(file, COUNTS_AT, UNIT);
    const tables = await readUpTo(file, DIRECTORY_AT, UNIT);
    for (let table = 0; table < tablesOf(header.size); table++) {
      const place = Number(tables.readBigUInt64LE(8 * table));
      this.#directory[table] = place;
      if (place === 0) continue;
      const bytes = await readUpTo(file, place, 8 * TABLE_ENTRIES);
      for (let at = 0; 8 * at < bytes.length; at++) {
        const entry = Number(bytes.readBigUInt64LE(8 * at));
        if (entry !== 0) this.#entries.set(table * TABLE_ENTRIES + at, entry);
      }
    }
    this.#wasDirty = ((await readHeader(file)).flags & DIRTY) !== 0;
    this.#isDirty = this.#wasDirty;
    for (let unit = FIRST_UNIT; unit < this.#units; unit++) if (this.#counts[unit] === 0) this.#free.push(unit);
  }

  /** @returns whether there was something to do */
  async repair(): Promise<boolean> {
    await this.load();
    if (!this.#wasDirty) return false;
    const { file, mistake } = this.#parts;
    const counts = Buffer.alloc(UNIT);
    counts.fill(1, 0, FIRST_UNIT);
    const places = [...this.#directory, ...[...this.#entries.values()].map(placeOf)].filter((place) => place > 0);
    for (const place of places) counts[place / UNIT] = 1;
    // an entry may be durable without the data, and without the size of the file
    await file.growth?.grow(Math.max(...places.map((place) => place + UNIT), this.#units * UNIT));
    if (mistake === 'repair is clean too early') await this.#setDirty(false);
    await file.write(counts, COUNTS_AT);
    await file.flush();
    await this.#setDirty(false);
    return true;
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    for (const part of partsOf(offset, buffer.byteLength)) {
      const into = slice(buffer, part);
      const entry = this.#entries.get(part.unit) ?? 0;
      if ((entry & ZERO) !== 0) into.fill(0);
      else if (entry > 0) await this.#parts.file.read(into, entry + part.from);
      else await this.#readBelow(into, part.unit * UNIT + part.from);
    }
  }

  async #readBelow(into: Uint8Array, offset: number): Promise<void> {
    const count = (await this.#parts.backing?.read(into, offset)) ?? 0;
    into.fill(0, count);
  }

  async #write(part: Part, bytes: Uint8Array): Promise<void> {
    const { file } = this.#parts;
    const entry = this.#entries.get(part.unit) ?? 0;
    if (entry > 0 && (entry & ZERO) === 0) return void (await file.write(bytes, entry + part.from));
    await this.#begin();
    const data = Buffer.alloc(UNIT);
    await this.#read(data, part.unit * UNIT);
    data.set(bytes, part.from);
    await this.#putNew(part.unit, data);
  }

  /** Writes a unit of the disk to a new place. */
  async #putNew(unit: number, data: Buffer): Promise<void> {
    const { file, backing, mistake } = this.#parts;
    const { place, isReused } = await this.#allocate();
    const needsBarrier = (backing !== null || isReused) && mistake !== 'no barrier for a copy';
    if (mistake === 'pointer first') await this.#setEntry(unit, place);
    const writing = file.write(data, place);
    if (mistake === 'pointer and data at once') writing.catch(() => {});
    else await writing;
    if (mistake !== 'count last') await this.#setCount(place, 1);
    if (needsBarrier && mistake !== 'pointer and data at once') await file.flush();
    if (mistake === 'acknowledges early') void this.#setEntry(unit, place);
    else if (mistake !== 'pointer first') await this.#setEntry(unit, place);
    if (mistake === 'count last') await this.#setCount(place, 1);
    await writing;
  }

  async #zero(part: Part): Promise<void> {
    if (part.to - part.from < UNIT && part.unit * UNIT + part.to < this.#parts.header.size) {
      return await this.#write(part, Buffer.alloc(part.to - part.from));
    }
    if (part.from > 0) return await this.#write(part, Buffer.alloc(part.to - part.from));
    const entry = this.#entries.get(part.unit) ?? 0;
    if ((entry & ZERO) !== 0) return;
    await this.#begin();
    const place = placeOf(entry);
    if (place > 0 && this.#parts.mistake === 'frees before the entry') await this.#release(place / UNIT);
    await this.#setEntry(part.unit, ZERO);
    if (place === 0 || this.#parts.mistake === 'frees before the entry') return;
    if (this.#parts.mistake === 'uses a freed unit too early') await this.#release(place / UNIT);
    else this.#freed.push(place / UNIT);
  }

  async #setEntry(unit: number, entry: number): Promise<void> {
    const { mistake } = this.#parts;
    const table = Math.floor(unit / TABLE_ENTRIES);
    if (mistake === 'loses an error') this.#entries.set(unit, entry);
    if (mistake === 'entries on the heap') {
      this.#entries.set(unit, entry);
      this.#unwritten.push(unit);
      return;
    }
    await this.#lock.run(-1 - table, 1, async () => {
      if ((this.#directory[table] ?? 0) === 0) await this.#newTable(table, unit, entry);
      else await this.#putEntry(table, unit, entry);
    });
    this.#entries.set(unit, entry);
  }

  async #putEntry(table: number, unit: number, entry: number): Promise<void> {
    const { file, mistake } = this.#parts;
    const place = this.#directory[table] as number;
    const at = unit % TABLE_ENTRIES;
    if (mistake === 'zeros the table first') {
      const bytes = await readUpTo(file, place, 8 * TABLE_ENTRIES);
      bytes.writeBigUInt64LE(BigInt(entry), 8 * at);
      await file.zero(place, bytes.length);
      await file.write(bytes, place);
    } else {
      await file.write(word(entry), place + 8 * at);
    }
  }

  async #newTable(table: number, unit: number, entry: number): Promise<void> {
    const { file, mistake } = this.#parts;
    const { place } = await this.#allocate();
    const bytes = Buffer.alloc(UNIT);
    bytes.writeBigUInt64LE(BigInt(entry), 8 * (unit % TABLE_ENTRIES));
    await file.write(bytes, place);
    await this.#setCount(place, 1);
    if (mistake !== 'no barrier for a table') await file.flush();
    await file.write(word(place), DIRECTORY_AT + 8 * table);
    this.#directory[table] = place;
  }

  async #allocate(): Promise<{ readonly place: number; readonly isReused: boolean }> {
    const unit = this.#free.shift();
    if (unit !== undefined) return { place: unit * UNIT, isReused: true };
    const fresh = this.#units++;
    await this.#parts.file.growth?.grow((fresh + 1) * UNIT);
    return { place: fresh * UNIT, isReused: false };
  }

  async #setCount(place: number, count: number): Promise<void> {
    await this.#parts.file.write(Buffer.of(count), COUNTS_AT + place / UNIT);
  }

  /** Frees a unit of the file that nothing names. */
  async #release(unit: number): Promise<void> {
    await this.#setCount(unit * UNIT, 0);
    await this.#parts.file.zero(unit * UNIT, UNIT, { punch: true });
    this.#free.push(unit);
  }

  async #begin(): Promise<void> {
    if (this.#isDirty || this.#parts.mistake === 'never dirty') return;
    await this.#lock.run(-1000, 1, async () => {
      if (this.#isDirty) return;
      await this.#setDirty(true);
      this.#isDirty = true;
    });
  }

  async #setDirty(isDirty: boolean): Promise<void> {
    const { file, header, mistake } = this.#parts;
    const flags = isDirty ? DIRTY : 0;
    if (mistake === 'writes the header whole') {
      const { generation } = await readHeader(file);
      await file.write(headerBytes({ ...header, flags, generation: generation + 1 }), 0);
    } else {
      await file.write(word(flags), 8);
    }
    if (mistake !== 'dirty without a flush' || !isDirty) await file.flush();
  }

  async #flush(): Promise<void> {
    const { file } = this.#parts;
    for (const unit of this.#unwritten.splice(0)) {
      const table = Math.floor(unit / TABLE_ENTRIES);
      const entry = this.#entries.get(unit) ?? 0;
      if ((this.#directory[table] ?? 0) === 0) await this.#newTable(table, unit, entry);
      else await this.#putEntry(table, unit, entry);
    }
    const freed = this.#freed.splice(0);
    await file.flush();
    for (const unit of freed) await this.#release(unit);
  }

  async #close(): Promise<void> {
    const { mistake } = this.#parts;
    if (mistake === 'clean too early' && this.#isDirty) await this.#setDirty(false);
    await this.#flush();
    await this.#flush();
    if (!this.#isDirty || mistake === 'clean too early') return;
    if (this.#wasDirty && mistake !== 'forgets other kills') return;
    await this.#setDirty(false);
  }

  async #alone(unit: number, work: () => Promise<void>): Promise<void> {
    await (this.#parts.mistake === 'merges old bytes' ? work() : this.#lock.run(unit, 1, work));
  }
}

function placeOf(entry: number): number {
  return entry - (entry % UNIT);
}

function word(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

/** A part of a request in one unit. */
interface Part {
  readonly unit: number;
  readonly from: number;
  readonly to: number;
  /** where it begins in the request */
  readonly at: number;
}

function partsOf(offset: number, length: number): Part[] {
  const parts: Part[] = [];
  for (let at = 0; at < length; ) {
    const from = (offset + at) % UNIT;
    const to = Math.min(UNIT, from + length - at);
    parts.push({ unit: Math.floor((offset + at) / UNIT), from, to, at });
    at += to - from;
  }
  return parts;
}

function slice(buffer: Uint8Array, { at, from, to }: Part): Uint8Array {
  return buffer.subarray(at, at + to - from);
}
