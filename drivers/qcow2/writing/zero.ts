/**
 * Makes parts of the disk zeros. An entry that has a place of its own keeps it: so nothing must be counted, and the image
 * does not grow when the part is written again.
 *
 *      map: ask, wait for the threads ──► L2 entries: zeros ──► old clusters freed, or holes ──► map: zeros
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { ZeroOptions } from '../../driver.js';
import { type ClusterEntry, COPIED, isKept, mustMove, putEntry, subclustersIn, ZERO } from '../format/entries.js';
import { SUBCLUSTERS, unitBytesOf } from '../format/header.js';
import type { Writer } from './writer.js';
import type { WriterParts } from './writer-parts.js';

const ALL = 0xffff_ffff;
/** the event loop goes on after so many L2 tables that are not there */
const SKIPPED_AT_ONCE = 1024;

/** A range of the disk that begins and ends at units, or at the end of the disk, within one L2 table. */
interface Units {
  readonly offset: number;
  readonly length: number;
}

/** A cluster of which something must become zeros. */
interface Change {
  readonly cluster: number;
  readonly old: ClusterEntry;
  /** subclusters, as bits */
  readonly units: number;
}

export class Zeroer {
  readonly #parts: WriterParts;
  readonly #writer: Writer;
  readonly #clusterBytes: number;
  readonly #unitBytes: number;

  constructor(parts: WriterParts, writer: Writer) {
    this.#parts = parts;
    this.#writer = writer;
    this.#clusterBytes = parts.tables.shape.clusterBytes;
    this.#unitBytes = unitBytesOf(parts.tables.shape);
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const { size, tables, owned, lock } = this.#parts;
    const end = offset + length;
    const from = Math.ceil(offset / this.#unitBytes) * this.#unitBytes;
    const to = end === size ? end : Math.floor(end / this.#unitBytes) * this.#unitBytes;
    await owned.begin();
    await this.#zeroPart(offset, Math.min(end, from));
    const tableBytes = tables.mappedBytes;
    let skipped = 0;
    for (let at = from; at < to; ) {
      const next = Math.min(to, (Math.floor(at / tableBytes) + 1) * tableBytes);
      const units = { offset: at, length: next - at };
      if (!this.#isEmpty(units)) {
        await lock.run(at, next - at, () => this.#zeroUnits(units, options));
        await nextTurn();
      } else if (++skipped % SKIPPED_AT_ONCE === 0) await nextTurn();
      at = next;
    }
    await this.#zeroPart(Math.max(offset, Math.max(from, to)), end);
  }

  /** Whether a range is zeros because it has no L2 table, which a large discard sees often. */
  #isEmpty({ offset, length }: Units): boolean {
    const { tables, reader, lock } = this.#parts;
    const l1Index = tables.l1IndexOf(Math.floor(offset / this.#clusterBytes));
    return tables.peek(l1Index) === null && reader.isEmpty(offset) && lock.isFree(offset, length);
  }

  /** Zeroes a part of one unit: writes zeros, unless it reads as zeros. */
  async #zeroPart(from: number, to: number): Promise<void> {
    if (from >= to) return;
    const { lock, reader } = this.#parts;
    const length = to - from;
    await lock.run(from, length, async () => {
      const found = await reader.finder.find(from, length);
      if (found.every((part) => reader.isZeros(part))) return;
      await this.#writer.writeLocked({ at: from, bytes: Buffer.alloc(length) });
    });
  }

  async #zeroUnits(range: Units, { punch }: ZeroOptions): Promise<void> {
    const { tables, owned, map } = this.#parts;
    const l1Index = tables.l1IndexOf(Math.floor(range.offset / this.#clusterBytes));
    if (this.#changesIn(range, await tables.get(l1Index)).length === 0) return;
    await owned.ownTable(l1Index);
    const changes = this.#changesIn(range, await tables.get(l1Index));
    const entries = changes.filter((change) => !this.#mustCopy(change));
    const whole = map?.map.wholeGranules(range.offset, range.length);
    if (whole !== undefined) await map?.map.withdraw(whole.first, whole.count);
    try {
      for (const change of changes) if (this.#mustCopy(change)) await this.#writeZeros(change, range);
      if (entries.length > 0) await this.#changeEntries(entries);
      await owned.releaseAll(entries.flatMap((change) => (this.#dropsPlace(change) ? [change.old] : [])));
      await this.#emptyPlaces(entries, punch);
    } finally {
      if (whole !== undefined) map?.map.restore(whole.first, whole.count);
      map?.moved(range.offset, range.length);
    }
  }

  /** Whether a part of a cluster becomes zeros whose other parts others use too. */
  #mustCopy({ cluster, old, units }: Change): boolean {
    return mustMove(old) && !this.#isWhole(cluster, units);
  }

  /** Whether units are all of a cluster; the last one of the disk may be cut. */
  #isWhole(cluster: number, units: number): boolean {
    const start = cluster * this.#clusterBytes;
    return units === this.#unitsOf(cluster, start, Math.min(start + this.#clusterBytes, this.#parts.size));
  }

  async #writeZeros({ cluster }: Change, { offset, length }: Units): Promise<void> {
    const start = cluster * this.#clusterBytes;
    const from = Math.max(offset, start);
    const to = Math.min(offset + length, start + this.#clusterBytes);
    await this.#writer.writeLocked({ at: from, bytes: Buffer.alloc(to - from) });
  }

  /** Whether the entry does not name its place any more, because others use it too. */
  #dropsPlace({ cluster, old, units }: Change): boolean {
    return old.hasPlace && !isKept(old) && this.#isWhole(cluster, units);
  }

  async #changeEntries(changes: readonly Change[]): Promise<void> {
    const { tables, owned } = this.#parts;
    const first = (changes[0] as Change).cluster;
    const count = (changes.at(-1) as Change).cluster - first + 1;
    try {
      await tables.change(first, count, (bytes) => {
        for (const change of changes) this.#putZeros(bytes, change);
      });
    } catch (error) {
      owned.tableFailed();
      throw error;
    }
  }

  /** The clusters of a range that do not read as zeros yet. */
  #changesIn({ offset, length }: Units, table: Parameters<WriterParts['tables']['entry']>[0]): Change[] {
    const { tables, reader } = this.#parts;
    const changes: Change[] = [];
    const first = Math.floor(offset / this.#clusterBytes);
    const end = Math.ceil((offset + length) / this.#clusterBytes);
    if (table === null && reader.isEmpty(offset)) return changes;
    for (let cluster = first; cluster < end; cluster++) {
      const old = tables.entry(table, cluster);
      const units = this.#unitsOf(cluster, offset, offset + length);
      const isZeros = (old.zeros & units) >>> 0 === units;
      const isEmpty = (old.allocated & units) === 0 && reader.isEmpty(cluster * this.#clusterBytes);
      if (!isZeros && !isEmpty) changes.push({ cluster, old, units });
    }
    return changes;
  }

  #unitsOf(cluster: number, from: number, to: number): number {
    if (!this.#parts.tables.shape.hasExtendedL2) return ALL;
    return subclustersIn(cluster * this.#clusterBytes, { from, to }, this.#unitBytes);
  }

  #putZeros(table: Buffer, change: Change): void {
    const { cluster, old, units } = change;
    const { entries, entryBytes, shape } = this.#parts.tables;
    const at = (cluster % entries) * entryBytes;
    const isDropped = this.#dropsPlace(change);
    if (!shape.hasExtendedL2) {
      putEntry(table, at, isKept(old) ? old.place : 0, (isKept(old) ? COPIED : 0) | ZERO);
      return;
    }
    if (isDropped) putEntry(table, at, 0, 0);
    table.writeUInt32BE(isDropped ? units : (old.zeros | units) >>> 0, at + 8);
    table.writeUInt32BE(isDropped ? 0 : (old.allocated & ~units) >>> 0, at + 12);
  }

  /** Frees the space of places that keep no data any more. */
  async #emptyPlaces(changes: readonly Change[], punch: boolean): Promise<void> {
    const { owned, data, isRawData } = this.#parts;
    const kept = changes.filter(({ old }) => isKept(old));
    // others read a raw data file without the tables
    const isEmptied = punch || isRawData;
    try {
      for (const { from, to } of isEmptied ? this.#placesOf(kept) : []) await data.zero(from, to - from, { punch });
    } catch (error) {
      for (const { old } of kept) owned.becomesUnknown(old.place);
      if (isRawData) throw error;
      return; // the entries say that it is zeros
    }
    for (const { cluster, old, units } of kept) {
      const isKnown = this.#isWhole(cluster, units) || owned.areZeros(old.place);
      if (isEmptied && isKnown) owned.becomesZeros(old.place);
      else owned.becomesUnknown(old.place);
    }
  }

  /** The bytes of clusters in the image or data file that become zeros. */
  #placesOf(changes: readonly Change[]): { from: number; to: number }[] {
    const { data } = this.#parts;
    const places: { from: number; to: number }[] = [];
    for (const { old, units } of changes) {
      for (const run of this.#runsOf(units)) {
        const from = old.place + run.from * this.#unitBytes;
        const to = Math.min(old.place + run.to * this.#unitBytes, data.size);
        const last = places.at(-1);
        if (last?.to === from) last.to = to;
        else if (from < to) places.push({ from, to });
      }
    }
    return places;
  }

  #runsOf(units: number): { from: number; to: number }[] {
    if (this.#unitBytes === this.#clusterBytes) return [{ from: 0, to: 1 }];
    const runs: { from: number; to: number }[] = [];
    for (let unit = 0; unit < SUBCLUSTERS; unit++) {
      if ((units & (1 << unit)) === 0) continue;
      const last = runs.at(-1);
      if (last?.to === unit) last.to = unit + 1;
      else runs.push({ from: unit, to: unit + 1 });
    }
    return runs;
  }
}
