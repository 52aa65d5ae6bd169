/**
 * The L1 table and the L2 tables of an image, as far as they are in memory. Every change is written to the image before it
 * counts, so a table can be dropped at any time and read again.
 *
 *      guest cluster ──► L1 entry ──► L2 table (memory: the tables used last) ──► entry
 */

import { constants } from 'node:os';
import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import { readUpTo } from '../../formats/read.js';
import { writeAll } from '../../lookup/write-all.js';
import { type ClusterEntry, type EntryShape, parseL1, parseL2, putEntry } from '../format/entries.js';
import { checkTable, type Header, l2Entries, l2EntryBytes } from '../format/header.js';

const { EIO } = constants.errno;

/** the most memory of L2 tables; large clusters have few tables, so at least FEWEST_TABLES are kept */
const MOST_BYTES = 16 << 20;
const FEWEST_TABLES = 4;

/** An L2 table in memory. */
export interface L2Table {
  readonly l1Index: number;
  /** its first byte in the image */
  readonly place: number;
  readonly bytes: Buffer;
  /** its refcount is 1, so it can be changed in place */
  readonly copied: boolean;
  /** changes that are being written: it must stay in memory */
  writers: number;
  /** bytes of it that have changed and are not being written yet */
  changed: { from: number; to: number } | null;
  /** the write that is under way, and the one after it */
  writing: Promise<void> | null;
  next: Promise<void> | null;
  /** a write of it failed, so the image may differ from it: nobody may use it any more */
  failed: boolean;
}

export interface L1Place {
  readonly offset: number;
  readonly entries: number;
}

/** Judges a table that was read, before anybody uses it. */
export type JudgeTable = (table: L2Table) => Promise<void>;

export class L2Tables {
  readonly shape: EntryShape;
  readonly entries: number;
  readonly entryBytes: number;
  readonly #image: Disk;
  readonly #l1Place: L1Place;
  #l1 = Buffer.alloc(0);
  readonly #judge: JudgeTable;
  readonly #most: number;
  /** by L1 index; the one used last is the last */
  readonly #tables = new Map<number, L2Table>();
  readonly #loading = new Map<number, Promise<L2Table | null>>();

  /** @param l1Place the header has checked it */
  constructor(image: Disk, header: Header, l1Place: L1Place, judge: JudgeTable = async () => {}) {
    this.shape = header;
    this.entries = l2Entries(header);
    this.entryBytes = l2EntryBytes(header);
    this.#image = image;
    this.#l1Place = l1Place;
    this.#judge = judge;
    this.#most = Math.max(FEWEST_TABLES, Math.floor(MOST_BYTES / header.clusterBytes));
  }

  /** Reads the L1 table. Must have resolved before any other call. */
  async load(): Promise<void> {
    this.#tables.clear();
    this.#l1 = Buffer.alloc(this.#l1Place.entries * 8);
    // the rest is zeros: the last cluster of a file may be cut
    (await readUpTo(this.#image, this.#l1Place.offset, this.#l1.length)).copy(this.#l1);
  }

  /** How many L2 tables there are. */
  get count(): number {
    let count = 0;
    for (const _ of this.places()) count += 1;
    return count;
  }

  /** How much of the disk a table maps. */
  get mappedBytes(): number {
    return this.entries * this.shape.clusterBytes;
  }

  /** The places of all L2 tables; entries that are not valid are left out. */
  *places(): Generator<number> {
    for (let index = 0; index < this.#l1Place.entries; index++) {
      const place = this.#validPlace(index);
      if (place !== 0) yield place;
    }
  }

  #validPlace(l1Index: number): number {
    try {
      return this.#l1Entry(l1Index).place;
    } catch {
      return 0;
    }
  }

  #l1Entry(l1Index: number): { place: number; copied: boolean } {
    const at = l1Index * 8;
    return parseL1(this.#l1.readUInt32BE(at), this.#l1.readUInt32BE(at + 4), this.shape.clusterBytes);
  }

  /** Whether the L1 table names no L2 table there. @throws FusetapError FAILED if its entry is not valid */
  isNone(l1Index: number): boolean {
    return this.#l1Entry(l1Index).place === 0;
  }

  l1IndexOf(cluster: number): number {
    return Math.floor(cluster / this.entries);
  }

  /** The table if it is in memory; null if there is none; undefined if it must be loaded. */
  peek(l1Index: number): L2Table | null | undefined {
    const table = this.#tables.get(l1Index);
    if (table !== undefined) return table;
    return this.#validPlace(l1Index) === 0 && !this.#isDamaged(l1Index) ? null : undefined;
  }

  #isDamaged(l1Index: number): boolean {
    const at = l1Index * 8;
    return this.#l1.readUInt32BE(at) !== 0 || this.#l1.readUInt32BE(at + 4) !== 0;
  }

  /**
   * The table that maps a part of the disk; null if there is none.
   * @throws FusetapError FAILED if it or its L1 entry is not valid
   */
  async get(l1Index: number): Promise<L2Table | null> {
    const known = this.#tables.get(l1Index);
    if (known !== undefined) {
      // it is the one used last now
      this.#tables.delete(l1Index);
      this.#tables.set(l1Index, known);
      return known;
    }
    const loading = this.#loading.get(l1Index) ?? this.#load(l1Index).finally(() => this.#loading.delete(l1Index));
    this.#loading.set(l1Index, loading);
    return await loading;
  }

  async #load(l1Index: number): Promise<L2Table | null> {
    const { place, copied } = this.#l1Entry(l1Index);
    if (place === 0) return null;
    const { clusterBytes } = this.shape;
    checkTable(place, clusterBytes, { clusterBytes, imageBytes: this.#image.size, what: 'L2 table' });
    const bytes = Buffer.alloc(clusterBytes);
    (await readUpTo(this.#image, place, clusterBytes)).copy(bytes);
    const table = newTable({ l1Index, place, bytes, copied });
    await this.#judge(table);
    // meanwhile another table may have taken its place, and may have been changed
    const newer = this.#tables.get(l1Index);
    if (newer !== undefined) return newer;
    if (this.#l1Entry(l1Index).place !== place) return await this.#load(l1Index);
    this.#keep(table);
    return table;
  }

  #keep(table: L2Table): void {
    this.#tables.set(table.l1Index, table);
    if (this.#tables.size <= this.#most) return;
    for (const [index, { writers }] of this.#tables) {
      if (this.#tables.size <= this.#most) break;
      if (writers === 0 && index !== table.l1Index) this.#tables.delete(index);
    }
  }

  /** The entry of a guest cluster. @throws FusetapError FAILED if it is not valid */
  entry(table: L2Table | null, cluster: number): ClusterEntry {
    if (table === null) return NO_CLUSTER;
    return parseL2(table.bytes, (cluster % this.entries) * this.entryBytes, this.shape);
  }

  /**
   * Writes what `edit` does to entries. Changes that come while a write is under way are written together. If the write
   * fails, the table is read again before it is used: the image may have some of the changes.
   * @param first the first guest cluster that changes; `count` clusters, all in one table, which must be there
   */
  async change(first: number, count: number, edit: (bytes: Buffer) => void): Promise<void> {
    const l1Index = this.l1IndexOf(first);
    let table = await this.get(l1Index);
    // nothing may wait between this and the change: the table could be dropped from memory
    while (table !== null && this.#tables.get(l1Index) !== table) table = await this.get(l1Index);
    if (table === null) throw new RangeError(`L1 entry ${l1Index} names no L2 table`);
    edit(table.bytes);
    const from = (first % this.entries) * this.entryBytes;
    const to = from + count * this.entryBytes;
    const { changed } = table;
    table.changed =
      changed === null ? { from, to } : { from: Math.min(changed.from, from), to: Math.max(changed.to, to) };
    table.writers += 1;
    try {
      await this.#written(table);
    } finally {
      table.writers -= 1;
    }
  }

  /** Resolves when the changes so far are in the image. */
  async #written(table: L2Table): Promise<void> {
    // one that waits to begin takes these changes too
    if (table.writing === null && table.next === null) return await this.#write(table);
    table.next ??= (table.writing ?? Promise.resolve())
      .catch(() => {})
      .then(() => {
        table.next = null;
        return this.#write(table);
      });
    await table.next;
  }

  #write(table: L2Table): Promise<void> {
    if (table.failed)
      return Promise.reject(new FusetapError('FAILED', 'a write to an L2 table failed', { errno: EIO }));
    const { from, to } = table.changed as { from: number; to: number };
    table.changed = null;
    // a copy: entries may change while it is being written, and must not be written before their time
    const bytes = Buffer.from(table.bytes.subarray(from, to));
    const writing = writeAll(this.#image, bytes, table.place + from)
      .catch((error: unknown) => {
        // before anybody else goes on: the write that waits for this one must not begin
        table.failed = true;
        if (this.#tables.get(table.l1Index) === table) this.#tables.delete(table.l1Index);
        throw error;
      })
      .finally(() => {
        if (table.writing === writing) table.writing = null;
      });
    table.writing = writing;
    return writing;
  }

  /** Makes a table that was written to the image the one that the L1 table names. */
  async place(l1Index: number, place: number, bytes: Buffer, flags: number): Promise<L2Table> {
    const entry = Buffer.alloc(8);
    putEntry(entry, 0, place, flags);
    await writeAll(this.#image, entry, this.#l1Place.offset + l1Index * 8);
    entry.copy(this.#l1, l1Index * 8);
    const table = newTable({ l1Index, place, bytes, copied: true });
    this.#tables.delete(l1Index);
    this.#keep(table);
    return table;
  }
}

const NO_CLUSTER: ClusterEntry = {
  ...{ kind: 'none', place: 0, copied: false, hasPlace: false, streamBytes: 0, allocated: 0, zeros: 0 },
};

function newTable(facts: Pick<L2Table, 'l1Index' | 'place' | 'bytes' | 'copied'>): L2Table {
  return { ...facts, writers: 0, changed: null, writing: null, next: null, failed: false };
}
