/**
 * Writes the disk of a qcow2 image.
 *
 *      in place     the cluster is used by nobody else ──► data
 *      else         clusters, counted ──► data, and the rest of its clusters ──► barrier ──► L2 entry ──► old cluster freed
 *                                                                               if old bytes were copied
 *
 * A write is acknowledged when the L2 entry is in the image. If the process is killed before, the entry still names the old
 * bytes. If the power fails, an entry may be durable without its data: then what was written and not flushed is zeros,
 * because free clusters are zeros. Only copied bytes, which were not written, must not become zeros, hence the barrier. A
 * place that an entry kept may have the bytes that it had before they were made zeros, so it needs the barrier, too.
 */
import { allDone } from '../../all-done.js';
import { writeAll } from '../../lookup/write-all.js';
import { type ClusterEntry, COPIED, isKept, mustMove, putEntry, subclustersIn } from '../format/entries.js';
import { unitBytesOf } from '../format/header.js';
import { Ahead } from './ahead.js';
import type { Place } from './owned.js';
import type { WriterParts } from './writer-parts.js';

const ALL = 0xffff_ffff;
/** A part of a write: bytes of the disk from `at` on. */
interface Part {
  readonly at: number;
  readonly bytes: Uint8Array;
}

export class Writer {
  readonly #parts: WriterParts;
  readonly #clusterBytes: number;
  /** what is copied with a write is a multiple of this */
  readonly #unitBytes: number;
  readonly #ahead: Ahead;

  constructor(parts: WriterParts) {
    this.#parts = parts;
    this.#clusterBytes = parts.tables.shape.clusterBytes;
    this.#unitBytes = unitBytesOf(parts.tables.shape);
    this.#ahead = new Ahead(parts);
  }

  async write(bytes: Uint8Array, at: number): Promise<void> {
    const { owned, lock } = this.#parts;
    await owned.begin();
    await lock.run(at, bytes.byteLength, () => this.writeLocked({ at, bytes }));
  }

  /** The caller has locked the clusters. */
  async writeLocked({ at, bytes }: Part): Promise<void> {
    for (let done = 0; done < bytes.byteLength; ) {
      done += await this.#writeSome({ at: at + done, bytes: bytes.subarray(done) });
    }
  }

  #clusterOf(at: number): number {
    return Math.floor(at / this.#clusterBytes);
  }

  /** Writes the first clusters of a part that are treated in the same way. @returns bytes written */
  async #writeSome(part: Part): Promise<number> {
    const { tables, owned } = this.#parts;
    const first = this.#clusterOf(part.at);
    const l1Index = tables.l1IndexOf(first);
    const table = await tables.get(l1Index);
    owned.mustBeSound();
    const end = Math.min(part.at + part.bytes.byteLength, (l1Index + 1) * tables.mappedBytes);
    const entry = tables.entry(table, first);
    const cut = (to: number): Part => ({ at: part.at, bytes: part.bytes.subarray(0, Math.min(to, end) - part.at) });
    const clusters = Math.ceil(end / this.#clusterBytes) - first;
    if (this.#isInPlace(entry, part.at, end)) {
      let count = 1;
      const follows = (next: ClusterEntry): boolean =>
        next.place === entry.place + count * this.#clusterBytes &&
        this.#isInPlace(next, (first + count) * this.#clusterBytes, end);
      while (count < clusters && follows(tables.entry(table, first + count))) count++;
      return await this.#writeInPlace(cut((first + count) * this.#clusterBytes), entry);
    }
    if (isKept(entry)) {
      const place = { place: entry.place, count: 1, isZeros: owned.areZeros(entry.place) };
      await owned.ownTable(l1Index);
      return await this.#writeTo(place, cut((first + 1) * this.#clusterBytes));
    }
    let count = 1;
    while (count < clusters && !isKept(tables.entry(table, first + count))) count++;
    return await this.#allocateFor(cut((first + count) * this.#clusterBytes), count);
  }

  /** Whether the clusters of a range can be written and no entry changes. */
  #isInPlace({ kind, copied, allocated }: ClusterEntry, from: number, to: number): boolean {
    if (kind !== 'data' || !copied) return false;
    if (allocated === ALL) return true;
    const mask = this.#unitsOf(this.#clusterOf(from), from, to);
    return mask !== 0 && (allocated & mask) >>> 0 === mask;
  }

  async #writeInPlace({ at, bytes }: Part, entry: ClusterEntry): Promise<number> {
    const { map } = this.#parts;
    const first = this.#clusterOf(at);
    const count = this.#clusterOf(at + bytes.byteLength - 1) + 1 - first;
    const ahead = this.#ahead.written(first, count);
    try {
      await this.#writeData(bytes, entry.place + (at % this.#clusterBytes));
    } finally {
      // whole clusters: until now the map may have one as zeros that was allocated ahead. Also if only a part was written
      map?.moved(first * this.#clusterBytes, count * this.#clusterBytes);
      await ahead;
    }
    return bytes.byteLength;
  }

  /** Writes to a place in the image or data file. A file may end within its last cluster, or before a place that has no data. */
  async #writeData(bytes: Uint8Array, place: number): Promise<void> {
    const { data } = this.#parts;
    const end = place + bytes.byteLength;
    if (end > data.size) await data.growth?.grow(Math.ceil(end / this.#clusterBytes) * this.#clusterBytes);
    await writeAll(data, bytes, place);
  }

  async #allocateFor(part: Part, count: number): Promise<number> {
    const { owned, tables } = this.#parts;
    const first = this.#clusterOf(part.at);
    await owned.ownTable(tables.l1IndexOf(first));
    const place = await owned.allocate(first, count);
    const ahead = this.#ahead.allocated(first, place.count);
    try {
      const to = (first + place.count) * this.#clusterBytes;
      const bytes = part.bytes.subarray(0, to - part.at);
      return await this.#writeTo(place, { at: part.at, bytes }, () => owned.giveBack(place));
    } finally {
      await ahead;
    }
  }

  /**
   * Writes a part to a place that the entries do not name yet, or not as data, and changes the entries.
   * @param undo gives the place back if the data could not be written
   */
  async #writeTo(place: Place, part: Part, undo = async (): Promise<void> => {}): Promise<number> {
    const { tables, owned, map } = this.#parts;
    const first = this.#clusterOf(part.at);
    const { olds, head, tail } = await this.#fillPlace(place, part)
      .catch(async (error: unknown) => {
        await undo();
        throw error;
      })
      .finally(() => this.#becomesUnknown(place));
    try {
      await tables.change(first, place.count, (bytes) => {
        for (const [i, old] of olds.entries()) {
          this.#putData(bytes, first + i, { old, place: place.place + i * this.#clusterBytes, from: head, to: tail });
        }
      });
    } catch (error) {
      owned.tableFailed();
      await map?.forget(first * this.#clusterBytes, place.count * this.#clusterBytes);
      throw error;
    }
    // at once: the table is in memory
    map?.moved(first * this.#clusterBytes, place.count * this.#clusterBytes);
    // with subclusters, the rest of the place keeps no data, and is known to be zeros
    if (tables.shape.hasExtendedL2 && place.isZeros) owned.staysZeros(place);
    const isLeft = (old: ClusterEntry, i: number): boolean =>
      old.place !== place.place + i * this.#clusterBytes || old.kind === 'compressed';
    await owned.releaseAll(olds.filter(isLeft));
    return part.bytes.byteLength;
  }

  /** Writes a part to a place, and the rest of its clusters. @returns the entries to change, and what is written */
  async #fillPlace(place: Place, part: Part): Promise<{ olds: ClusterEntry[]; head: number; tail: number }> {
    const { tables, barrier } = this.#parts;
    const first = this.#clusterOf(part.at);
    const table = await tables.get(tables.l1IndexOf(first));
    const olds = Array.from({ length: place.count }, (_, i) => tables.entry(table, first + i));
    const head = this.#startOf(olds[0] as ClusterEntry, part.at);
    const tail = this.#endOf(olds.at(-1) as ClusterEntry, part.at + part.bytes.byteLength);
    const { writes, isMerged } = await this.#mergeRest(part, { head, tail, isZeros: place.isZeros });
    const start = first * this.#clusterBytes;
    await allDone(writes.map(async ({ at, bytes }) => this.#writeData(bytes, place.place + at - start)));
    if (isMerged || !place.isZeros) await barrier.pass();
    return { olds, head, tail };
  }

  #becomesUnknown({ place, count }: Place): void {
    for (let i = 0; i < count; i++) this.#parts.owned.becomesUnknown(place + i * this.#clusterBytes);
  }

  /**
   * Where the bytes begin that must be at the new place. The rest of a subcluster that is in place stays as it is: threads
   * may be writing to it.
   */
  #startOf(old: ClusterEntry, at: number): number {
    if (mustMove(old)) return at - (at % this.#clusterBytes);
    return this.#isUnitInPlace(old, at) ? at : at - (at % this.#unitBytes);
  }

  #endOf(old: ClusterEntry, end: number): number {
    if (!mustMove(old) && this.#isUnitInPlace(old, end - 1)) return end;
    const unit = mustMove(old) ? this.#clusterBytes : this.#unitBytes;
    return Math.min(Math.ceil(end / unit) * unit, this.#parts.size);
  }

  #isUnitInPlace({ allocated }: ClusterEntry, at: number): boolean {
    return (allocated & this.#unitsOf(this.#clusterOf(at), at, at + 1)) !== 0;
  }

  /**
   * Adds to a write what is before and after it in its clusters. What is zeros needs no write if the place is zeros.
   * @returns isMerged: bytes are written that were in the disk before
   */
  async #mergeRest(
    part: Part,
    { head, tail, isZeros }: { head: number; tail: number; isZeros: boolean },
  ): Promise<{ writes: Part[]; isMerged: boolean }> {
    const end = part.at + part.bytes.byteLength;
    if (tail - head <= this.#clusterBytes) {
      const merged = await this.#oldBytes(head, tail, part, isZeros);
      if (merged === null) return { writes: [part], isMerged: false };
      merged.set(part.bytes, part.at - head);
      return { writes: [{ at: head, bytes: merged }], isMerged: true };
    }
    const rests = await Promise.all([
      this.#oldBytes(head, part.at, null, isZeros),
      this.#oldBytes(end, tail, null, isZeros),
    ]);
    const written = rests.flatMap((bytes, i) => (bytes === null ? [] : [{ at: i === 0 ? head : end, bytes }]));
    return { writes: [part, ...written], isMerged: written.length > 0 };
  }

  /**
   * The bytes of a range that must be written; null if none must be.
   * @param except a part of the range that is written with other bytes
   */
  async #oldBytes(from: number, to: number, except: Part | null, isZeros: boolean): Promise<Buffer | null> {
    const exceptEnd = except === null ? from : except.at + except.bytes.byteLength;
    const exceptAt = except?.at ?? from;
    if (exceptAt === from && exceptEnd >= to) return null;
    const { reader } = this.#parts;
    const found = await reader.finder.find(from, to - from);
    const isEmpty = found.every((part) => reader.isZeros(part));
    if (isEmpty && isZeros) return null;
    const bytes = Buffer.alloc(to - from);
    if (isEmpty) return bytes;
    await reader.readFound(found, bytes, from);
    const isOld = !areZeros(bytes.subarray(0, exceptAt - from)) || !areZeros(bytes.subarray(exceptEnd - from));
    return isOld || !isZeros ? bytes : null;
  }

  #putData(
    table: Buffer,
    cluster: number,
    { old, place, from, to }: { old: ClusterEntry; place: number; from: number; to: number },
  ): void {
    const { entries, entryBytes, shape } = this.#parts.tables;
    const at = (cluster % entries) * entryBytes;
    putEntry(table, at, place, COPIED);
    if (!shape.hasExtendedL2) return;
    const units = this.#unitsOf(cluster, from, to);
    const kept = mustMove(old) ? 0 : old.allocated;
    table.writeUInt32BE((old.kind === 'compressed' ? 0 : old.zeros & ~units) >>> 0, at + 8);
    table.writeUInt32BE((kept | units) >>> 0, at + 12);
  }

  /** The subclusters of a cluster that a range touches, as bits. */
  #unitsOf(cluster: number, from: number, to: number): number {
    return subclustersIn(cluster * this.#clusterBytes, { from, to }, this.#unitBytes);
  }
}

const ZEROS = Buffer.alloc(1 << 16);

function areZeros(bytes: Buffer): boolean {
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const end = Math.min(bytes.length, at + ZEROS.length);
    if (ZEROS.compare(bytes, at, end, 0, end - at) !== 0) return false;
  }
  return true;
}
