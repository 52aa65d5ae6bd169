/** Writes sparse VMDKs by VMware's description, for tests. */
import { deflateSync } from 'node:zlib';
import { vmdkDescriptor } from './vmdk.js';

const SECTOR = 512;
const AT_END = 0xffff_ffff_ffff_ffffn;

/** The bytes of a grain, or what its entry says. */
export type Grain = Buffer | 'zeros' | { readonly entry: number };

export interface SparseFields {
  /** of the disk, in bytes */
  readonly size: number;
  readonly grainBytes?: number;
  readonly entries?: number;
  /** null: none */
  readonly descriptor?: Buffer | null;
  readonly version?: number;
  readonly flags?: number;
  /** each table is there twice, and a redundant directory names the copies; default: false */
  readonly redundant?: boolean;
  /** tables without entries are there, too, as in images of QEMU; default: false */
  readonly allTables?: boolean;
  /** changes the header before it is written */
  readonly change?: (header: Buffer) => void;
}

/** Where things are in an image, in bytes. */
export interface SparseImage {
  readonly bytes: Buffer;
  readonly directory: number;
  /** of each table */
  readonly tables: readonly number[];
  /** of each grain that has bytes, by its number */
  readonly grains: ReadonlyMap<number, number>;
}

const FLAGS = { hosted: 0x3 | 0x4, stream: 0x3_0001 };

/** An extent of a hosted disk, as monolithicSparse, or without descriptor. */
export function hostedVmdk(grains: ReadonlyMap<number, Grain>, fields: SparseFields): SparseImage {
  const { size, grainBytes = 65_536, entries = 512, descriptor = vmdkDescriptor([sparseLine(size)]) } = fields;
  const file = new Sectors();
  file.add(Buffer.alloc(SECTOR));
  const text = descriptor === null ? 0 : file.add(descriptor);
  const { redundant = false, allTables = false } = fields;
  const placed = addTables(file, grains, { size, grainBytes, entries, redundant, allTables });
  const header = headerOf({ ...fields, grainBytes, entries, flags: fields.flags ?? FLAGS.hosted });
  if (descriptor !== null) putDescriptor(header, text, descriptor);
  header.writeBigUInt64LE(BigInt(placed.directory / SECTOR), 56);
  if (redundant) header.writeBigUInt64LE(BigInt(placed.copies / SECTOR), 48);
  fields.change?.(header);
  file.put(header, 0);
  return { ...placed, bytes: file.bytes };
}

/** A stream: compressed grains, then tables, the directory, and the footer. */
export function streamVmdk(grains: ReadonlyMap<number, Buffer>, fields: SparseFields): SparseImage {
  const { size, grainBytes = 65_536, entries = 512 } = fields;
  const descriptor = fields.descriptor ?? vmdkDescriptor([sparseLine(size)], { type: 'streamOptimized' });
  const file = new Sectors();
  file.add(Buffer.alloc(SECTOR));
  const text = file.add(descriptor);
  const places = new Map<number, number>();
  for (const [number, bytes] of grains) places.set(number, file.add(markedGrain(number * grainBytes, bytes)));
  const tables = tablesOf(places, { size, grainBytes, entries }).map((table) => {
    if (table === null) return 0;
    file.add(marker(Math.ceil(table.length / SECTOR), 1));
    return file.add(table);
  });
  const directoryBytes = directoryOf(tables);
  file.add(marker(Math.ceil(directoryBytes.length / SECTOR), 2));
  const directory = file.add(directoryBytes);
  const header = headerOf({ ...fields, grainBytes, entries, flags: fields.flags ?? FLAGS.stream });
  header.writeUInt16LE(1, 77);
  putDescriptor(header, text, descriptor);
  fields.change?.(header);
  const first = Buffer.from(header);
  first.writeBigUInt64LE(AT_END, 56);
  header.writeBigUInt64LE(BigInt(directory / SECTOR), 56);
  file.put(first, 0);
  file.add(marker(1, 3));
  file.add(header);
  file.add(marker(0, 0));
  return { bytes: file.bytes, directory, tables, grains: places };
}

/** An extent of a snapshot of ESXi. */
export function cowdVmdk(grains: ReadonlyMap<number, Grain>, { size, grainBytes = SECTOR }: SparseFields): SparseImage {
  const file = new Sectors();
  file.add(Buffer.alloc(2048));
  const shape = { size, grainBytes, entries: 4096, redundant: false, allTables: false };
  const placed = addTables(file, grains, shape);
  const header = Buffer.alloc(SECTOR);
  header.write('COWD', 'latin1');
  for (const [at, value] of [
    [4, 1],
    [8, 3],
    [12, size / SECTOR],
    [16, grainBytes / SECTOR],
    [20, placed.directory / SECTOR],
    [24, placed.tables.length],
  ] as const) {
    header.writeUInt32LE(value, at);
  }
  file.put(header, 0);
  return { ...placed, bytes: file.bytes };
}

/** A compressed grain with its marker. @param at its first byte in the disk */
export function markedGrain(at: number, bytes: Buffer, stream: Buffer = deflateSync(bytes)): Buffer {
  const head = Buffer.alloc(12);
  head.writeBigUInt64LE(BigInt(at / SECTOR), 0);
  head.writeUInt32LE(stream.length, 8);
  return Buffer.concat([head, stream]);
}

function sparseLine(size: number): string {
  return `RW ${Math.ceil(size / SECTOR)} SPARSE "the name that it once had.vmdk"`;
}

class Sectors {
  #bytes = Buffer.alloc(0);

  get bytes(): Buffer {
    return this.#bytes;
  }

  /** Adds bytes as whole sectors. @returns where they are */
  add(bytes: Buffer): number {
    const at = this.#bytes.length;
    this.#bytes = Buffer.concat([this.#bytes, bytes, Buffer.alloc((SECTOR - (bytes.length % SECTOR)) % SECTOR)]);
    return at;
  }

  put(bytes: Buffer, at: number): void {
    bytes.copy(this.#bytes, at);
  }
}

type Shape = Required<Pick<SparseFields, 'size' | 'grainBytes' | 'entries'>>;
type Tables = Required<Pick<SparseFields, 'redundant' | 'allTables'>>;

function addTables(
  file: Sectors,
  grains: ReadonlyMap<number, Grain>,
  shape: Shape & Tables,
): Pick<SparseImage, 'directory' | 'tables' | 'grains'> & { readonly copies: number } {
  const count = Math.ceil(shape.size / (shape.grainBytes * shape.entries));
  const copies = shape.redundant ? file.add(Buffer.alloc(count * 4)) : 0;
  const directory = file.add(Buffer.alloc(count * 4));
  const places = new Map<number, number>();
  const words = new Map<number, number>();
  for (const [number, grain] of grains) {
    if (Buffer.isBuffer(grain)) {
      places.set(number, file.add(grain));
      words.set(number, (places.get(number) ?? 0) / SECTOR);
    } else words.set(number, grain === 'zeros' ? 1 : grain.entry);
  }
  const wanted = tablesOf(new Map([...words].map(([number, word]) => [number, word * SECTOR])), shape);
  const empty = shape.allTables ? Buffer.alloc(shape.entries * 4) : null;
  const addAll = (): number[] =>
    wanted.map((table) => (table ?? empty) && file.add((table ?? empty) as Buffer)).map((at) => at ?? 0);
  if (shape.redundant) file.put(directoryOf(addAll()), copies);
  const tables = addAll();
  file.put(directoryOf(tables), directory);
  return { copies, directory, tables, grains: places };
}

/** @param places of grains, in bytes. A table without grains is null */
function tablesOf(places: ReadonlyMap<number, number>, { size, grainBytes, entries }: Shape): (Buffer | null)[] {
  const tables: (Buffer | null)[] = Array.from({ length: Math.ceil(size / (grainBytes * entries)) }, () => null);
  for (const [number, place] of places) {
    const index = Math.floor(number / entries);
    const table = tables[index] ?? Buffer.alloc(entries * 4);
    tables[index] = table;
    table.writeUInt32LE(place / SECTOR, (number % entries) * 4);
  }
  return tables;
}

function directoryOf(tables: readonly number[]): Buffer {
  const directory = Buffer.alloc(tables.length * 4);
  for (const [i, place] of tables.entries()) directory.writeUInt32LE(place / SECTOR, i * 4);
  return directory;
}

function headerOf({ size, version = 1, flags = 0, grainBytes = 0, entries = 0 }: SparseFields): Buffer {
  const header = Buffer.alloc(SECTOR);
  header.write('KDMV', 'latin1');
  header.writeUInt32LE(version, 4);
  header.writeUInt32LE(flags, 8);
  header.writeBigUInt64LE(BigInt(Math.ceil(size / SECTOR)), 12);
  header.writeBigUInt64LE(BigInt(grainBytes / SECTOR), 20);
  header.writeUInt32LE(entries, 44);
  header.write('\n \r\n', 73, 'latin1');
  return header;
}

function putDescriptor(header: Buffer, at: number, { length }: Buffer): void {
  header.writeBigUInt64LE(BigInt(at / SECTOR), 28);
  header.writeBigUInt64LE(BigInt(Math.ceil(length / SECTOR)), 36);
}

/** A marker that is no grain. @param sectors that follow it */
function marker(sectors: number, type: number): Buffer {
  const bytes = Buffer.alloc(SECTOR);
  bytes.writeBigUInt64LE(BigInt(sectors), 0);
  bytes.writeUInt32LE(type, 12);
  return bytes;
}
