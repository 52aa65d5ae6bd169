/**
 * Allocates clusters ahead of writes in sequence, so that threads serve the next writes without a change of an entry.
 *
 *      W write that allocates   h held by a write under way   a allocated ahead: zeros, as they were   m the mark
 *
 *      WhhhaaaamaaaaaaaaaaaaaamaaaaaaaaaaaaaWhhh
 *              └─ threads leave a write of the mark to the event loop, which allocates more while they write the rest
 */
import { COPIED, putEntry } from '../format/entries.js';
import type { L2Table } from '../reading/l2-tables.js';
import type { Place } from './owned.js';
import type { WriterParts } from './writer-parts.js';

const ALL = 0xffff_ffff;
/** the most that is allocated in one step; it is at most twice what the sequence has written so far */
const MOST_BYTES = 16 << 20;
/** writes in sequence come in any order within this distance */
const NEAR_BYTES = 1 << 20;
/** a shorter run gets no mark */
const FEWEST_MARKED = 16;

export class Ahead {
  readonly #parts: WriterParts;
  readonly #near: number;
  readonly #most: number;
  /** the cluster after the sequence and what is allocated for it, and how many clusters were allocated the last time */
  #end = -1;
  #count = 0;
  /** the cluster whose write tells that more is needed soon; -1: none */
  #mark = -1;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    const { clusterBytes } = parts.tables.shape;
    this.#near = Math.max(1, NEAR_BYTES / clusterBytes);
    this.#most = MOST_BYTES / clusterBytes;
  }

  /**
   * Clusters are allocated for a write: allocates after them if it is part of a sequence. The caller owns their L2 table.
   * Never rejects: the writes that need these clusters allocate them then, or get the error.
   */
  async allocated(first: number, count: number): Promise<void> {
    // a data file may have other bytes than zeros there
    if (this.#parts.tables.shape.hasDataFile) return;
    const distance = first - this.#end;
    // requests overtake each other: this one belongs to the sequence
    if (distance < 0 && distance >= -this.#count - this.#near) return;
    const goesOn = distance >= 0 && distance <= this.#near;
    this.#end = first + count;
    this.#mark = -1;
    this.#count = goesOn ? this.#more() : 0;
    if (goesOn) await this.#extend().catch(() => {});
  }

  /** Clusters were written in place. Never rejects. */
  async written(first: number, count: number): Promise<void> {
    if (this.#mark < first || this.#mark >= first + count) return;
    this.#mark = -1;
    this.#count = this.#more();
    await this.#extend().catch(() => {});
  }

  #more(): number {
    return Math.min(2 * this.#count + 1, this.#most);
  }

  /** Allocates at the end of the sequence. */
  async #extend(): Promise<void> {
    const { tables, lock, owned, size } = this.#parts;
    const { clusterBytes } = tables.shape;
    if (this.#end >= Math.ceil(size / clusterBytes)) return;
    const l1Index = tables.l1IndexOf(this.#end);
    await owned.ownTable(l1Index);
    await tables.get(l1Index);
    // nothing may wait between this and the lock: the sequence may be elsewhere now, and the table another one in memory
    const table = tables.peek(l1Index);
    if (table === undefined || table === null || tables.l1IndexOf(this.#end) !== l1Index) return;
    const free = this.#findFree(table);
    if (free.count === 0) return;
    const held = lock.hold(free.start * clusterBytes, free.count * clusterBytes);
    this.#end = free.start + free.count;
    try {
      const mark = free.count < FEWEST_MARKED ? -1 : free.start + Math.floor(free.count / 2);
      for (let done = 0; done < free.count; ) done += await this.#allocate(free.start + done, free.count - done, mark);
    } finally {
      held.release();
    }
  }

  /** Clusters at the end of the sequence that have no place, read as zeros, and are held by nobody, all in one table. */
  #findFree(table: L2Table): { start: number; count: number } {
    const { tables, reader, size, lock } = this.#parts;
    const { clusterBytes } = tables.shape;
    const last = Math.min(Math.ceil(size / clusterBytes), (table.l1Index + 1) * tables.entries);
    const isHeld = (cluster: number): boolean => !lock.isFree(cluster * clusterBytes, clusterBytes);
    const isFree = (cluster: number): boolean => {
      if (!reader.isEmpty(cluster * clusterBytes) || isHeld(cluster)) return false;
      const { kind, hasPlace } = tables.entry(table, cluster);
      return kind === 'none' && !hasPlace;
    };
    let start = this.#end;
    while (start < Math.min(last, this.#end + this.#near) && isHeld(start)) start++;
    let end = start;
    while (end < Math.min(last, start + this.#count) && isFree(end)) end++;
    return { start, count: end - start };
  }

  /** Gives a place to the first of some clusters, which the caller has locked. @returns how many have one */
  async #allocate(first: number, most: number, mark: number): Promise<number> {
    const { tables, owned, map } = this.#parts;
    const { clusterBytes } = tables.shape;
    const place = await owned.allocate(first, most);
    const end = first + place.count;
    const range = (from: number, to: number): [number, number] => [from * clusterBytes, (to - from) * clusterBytes];
    try {
      await tables.change(first, place.count, (bytes) => this.#putData(bytes, first, place));
    } catch (error) {
      owned.tableFailed();
      await map?.forget(...range(first, end));
      throw error;
    }
    if (mark < first || mark >= end) {
      map?.moved(...range(first, end));
    } else {
      this.#mark = mark;
      map?.moved(...range(first, mark));
      map?.moved(...range(mark + 1, end));
    }
    return place.count;
  }

  #putData(bytes: Buffer, first: number, { place, count }: Place): void {
    const { entries, entryBytes, shape } = this.#parts.tables;
    for (let i = 0; i < count; i++) {
      const at = ((first + i) % entries) * entryBytes;
      putEntry(bytes, at, place + i * shape.clusterBytes, COPIED);
      if (!shape.hasExtendedL2) continue;
      bytes.writeUInt32BE(0, at + 8);
      bytes.writeUInt32BE(ALL, at + 12);
    }
  }
}
