/**
 * The table of internal snapshots. Each entry begins at a multiple of 8 bytes:
 *
 *      0 L1 offset 8   8 L1 entries 4   12 id length 2   14 name length 2   16 seconds 4   20 nanoseconds 4
 *      24 clock of the guest 8   32 bytes of the VM state 4   36 bytes of extra data 4
 *      40 extra data: bytes of the VM state 8, bytes of the disk 8 …   id   name
 *
 * A snapshot is an L1 table. The state of the VM lies behind the end of its disk in that table, and is never served.
 */
import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import { broken, unsupported } from '../../formats/faults.js';
import { readUpTo } from '../../formats/read.js';
import { quoted, quotedList } from '../../quote.js';
import {
  checkTable,
  FORMAT,
  type Header,
  l1EntriesFor,
  MOST_L1_BYTES,
  SECTOR_BYTES,
  SNAPSHOT_ENTRY_BYTES,
} from './header.js';

const MOST_EXTRA_BYTES = 1024;
const MOST_TABLE_BYTES = 64 << 20;
const CHUNK_BYTES = 1 << 16;
/** the most snapshots that an error lists */
const MOST_LISTED = 10;

export interface Snapshot {
  /** a number, as text */
  readonly id: string;
  readonly name: string;
  readonly l1: Header['l1'];
  /** of its disk, in bytes */
  readonly size: number;
  /** 0: it has no state of a VM */
  readonly vmStateBytes: number;
  readonly date: Date;
}

/**
 * The snapshots of an image, in the order of the table. Their L1 tables and sizes are not checked.
 * @throws FusetapError FAILED if the table is damaged
 */
export async function* visitSnapshots(
  image: Disk,
  header: Pick<Header, 'snapshots' | 'size'>,
): AsyncGenerator<Snapshot, void, undefined> {
  const { offset, count } = header.snapshots;
  const table = new TableReader(image, offset);
  for (let number = 0, at = 0; number < count; number += 1) {
    const head = await table.read(at, SNAPSHOT_ENTRY_BYTES);
    const extraBytes = head.readUInt32BE(36);
    if (extraBytes > MOST_EXTRA_BYTES) {
      throw broken(FORMAT, `a snapshot has ${extraBytes} bytes of extra data, more than ${MOST_EXTRA_BYTES}`);
    }
    const idAt = SNAPSHOT_ENTRY_BYTES + extraBytes;
    const nameAt = idAt + head.readUInt16BE(12);
    const length = nameAt + head.readUInt16BE(14);
    const entry = await table.read(at, length);
    const id = entry.toString('utf8', idAt, nameAt);
    yield { id, name: entry.toString('utf8', nameAt), ...parseNumbers(entry, extraBytes, header.size) };
    at += Math.ceil(length / 8) * 8;
  }
}

function parseNumbers(entry: Buffer, extraBytes: number, activeSize: number): Omit<Snapshot, 'id' | 'name'> {
  const big = (at: number): number => Number(entry.readBigUInt64BE(at));
  return {
    l1: { offset: big(0), entries: entry.readUInt32BE(8) },
    // old writers had no extra data, and could not change the size of an image that has snapshots
    size: extraBytes >= 16 ? big(SNAPSHOT_ENTRY_BYTES + 8) : activeSize,
    vmStateBytes: extraBytes >= 8 ? big(SNAPSHOT_ENTRY_BYTES) : entry.readUInt32BE(32),
    date: new Date(entry.readUInt32BE(16) * 1000 + entry.readUInt32BE(20) / 1e6),
  };
}

/** Reads the table in chunks. */
class TableReader {
  readonly #image: Disk;
  readonly #offset: number;
  #chunk: Buffer = Buffer.alloc(0);
  #chunkAt = 0;

  constructor(image: Disk, offset: number) {
    this.#image = image;
    this.#offset = offset;
  }

  /** @throws FusetapError FAILED if the table is too large, or ends early */
  async read(at: number, length: number): Promise<Buffer> {
    if (at + length > MOST_TABLE_BYTES) throw broken(FORMAT, 'its snapshot table has more than 64 MiB');
    if (at < this.#chunkAt || at + length > this.#chunkAt + this.#chunk.length) {
      this.#chunk = await readUpTo(this.#image, this.#offset + at, Math.max(length, CHUNK_BYTES));
      this.#chunkAt = at;
      if (this.#chunk.length < length) throw broken(FORMAT, 'its snapshot table ends after the end of the image');
    }
    return this.#chunk.subarray(at - this.#chunkAt, at - this.#chunkAt + length);
  }
}

/**
 * Finds the snapshot that a user names: by its id, as QEMU does, else by its name. Its L1 table and size may be used in
 * place of those of the header.
 * @throws FusetapError NOT_FOUND if there is none; USAGE if several have the name; FAILED if the table or the snapshot is
 * damaged
 */
export async function findSnapshot(image: Disk, header: Header, wanted: string): Promise<Snapshot> {
  const byName: Snapshot[] = [];
  const names: string[] = [];
  for await (const snapshot of visitSnapshots(image, header)) {
    if (snapshot.id === wanted) return checked(snapshot, header, image.size);
    if (snapshot.name === wanted && byName.length < MOST_LISTED) byName.push(snapshot);
    if (names.length < MOST_LISTED) names.push(snapshot.name);
  }
  const [only] = byName;
  if (only !== undefined && byName.length === 1) return checked(only, header, image.size);
  if (only !== undefined) {
    const ids = byName.map(({ id }) => id);
    throw new FusetapError('USAGE', `several snapshots have the name ${quoted(wanted)}`, {
      hint: `give the id of one: ${quotedList(ids)}`,
    });
  }
  throw new FusetapError('NOT_FOUND', `the image has no snapshot ${quoted(wanted)}`, {
    hint:
      names.length === 0
        ? 'it has no snapshots'
        : `name one with --option snapshot=NAME: ${quotedList(names, header.snapshots.count)}`,
  });
}

function checked(snapshot: Snapshot, header: Header, imageBytes: number): Snapshot {
  const { l1, name } = snapshot;
  const what = `L1 table of the snapshot ${quoted(name)}`;
  const size = snapshot.size - (snapshot.size % SECTOR_BYTES);
  if (!Number.isSafeInteger(size)) throw broken(FORMAT, `the size of the snapshot ${quoted(name)} is too large`);
  if (size === 0) throw unsupported(`the disk of the snapshot ${quoted(name)} has no bytes`);
  if (l1.entries * 8 > MOST_L1_BYTES) throw broken(FORMAT, `the ${what} has ${l1.entries} entries`);
  if (l1.entries < l1EntriesFor(size, header)) throw broken(FORMAT, `the ${what} is too small for ${size} bytes`);
  checkTable(l1.offset, l1.entries * 8, { clusterBytes: header.clusterBytes, imageBytes, what });
  return { ...snapshot, size };
}
