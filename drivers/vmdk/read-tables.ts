/** Reads directories and all their tables, many with each read, because programs put them one behind the other. */
import type { Disk } from '../disk.js';
import { broken } from '../formats/faults.js';
import { readUpTo } from '../formats/read.js';
import { SECTOR_BYTES } from './descriptor.js';
import type { Region } from './sparse-header.js';

export const ENTRY_BYTES = 4;
const CHUNK_BYTES = 1 << 20;

/** The entries of a directory: sectors. @throws FusetapError FAILED if it is cut off */
export async function readDirectory(image: Disk, { offset, length }: Region): Promise<Uint32Array> {
  const bytes = await readWhole(image, offset, length);
  return Uint32Array.from({ length: length / ENTRY_BYTES }, (_, index) => entryAt(bytes, index));
}

/** An entry of a directory or a table. */
export function entryAt(table: Buffer, index: number): number {
  return table.readUInt32LE(index * ENTRY_BYTES);
}

/** A table and its place in the image, in bytes. */
export interface TableRow {
  readonly index: number;
  readonly place: number;
}

/** Reads tables, in the order of the rows. Copy what you keep: many share one buffer. @throws FusetapError FAILED if one is cut off */
export async function* readTables(
  image: Disk,
  rows: Iterable<TableRow>,
  tableEntries: number,
): AsyncGenerator<{ readonly index: number; readonly entries: Buffer }> {
  const tableBytes = tableEntries * ENTRY_BYTES;
  const stride = Math.ceil(tableBytes / SECTOR_BYTES) * SECTOR_BYTES;
  for (const run of runsOf(rows, stride)) {
    const [first] = run;
    const bytes = await readWhole(image, first?.place ?? 0, (run.length - 1) * stride + tableBytes);
    for (const [i, { index }] of run.entries()) {
      yield { index, entries: bytes.subarray(i * stride, i * stride + tableBytes) };
    }
  }
}

/** Tables that lie one behind the other. */
function* runsOf(rows: Iterable<TableRow>, stride: number): Generator<TableRow[]> {
  const most = Math.max(1, Math.floor(CHUNK_BYTES / stride));
  let run: TableRow[] = [];
  for (const row of rows) {
    const last = run.at(-1);
    if (last !== undefined && (last.place + stride !== row.place || run.length === most)) {
      yield run;
      run = [];
    }
    run.push(row);
  }
  if (run.length > 0) yield run;
}

async function readWhole(image: Disk, offset: number, length: number): Promise<Buffer> {
  const bytes = await readUpTo(image, offset, length);
  if (bytes.length === length) return bytes;
  throw broken('VMDK', `its tables at byte ${offset} are cut off`);
}

export function bytesOf(words: Uint32Array): Buffer {
  const bytes = Buffer.alloc(words.length * ENTRY_BYTES);
  for (const [at, word] of words.entries()) bytes.writeUInt32LE(word, at * ENTRY_BYTES);
  return bytes;
}
