/**
 * What a writer owns of an image: clusters that nobody else uses, and L2 tables that may change. Watches over the image:
 * if its tables contradict each other, nothing is written any more, because that could destroy data.
 */
import { constants } from 'node:os';
import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import { broken } from '../../formats/faults.js';
import type { Barrier } from '../../lookup/barrier.js';
import { writeAll } from '../../lookup/write-all.js';
import { type ClusterEntry, COPIED } from '../format/entries.js';
import { FORMAT, type Header, SNAPSHOT_ENTRY_BYTES } from '../format/header.js';
import type { L1Place, L2Table, L2Tables } from '../reading/l2-tables.js';
import type { Refcounts, Run } from './refcounts.js';
import type { Session } from './session.js';

/** the most places that are remembered as zeros */
const MOST_ZEROED = 65_536;

/** a time before the first flush */
const BEFORE_ALL = -1;

/** A place for guest clusters that follow one another. */
export interface Place {
  readonly place: number;
  /** clusters */
  readonly count: number;
  /** it reads as zeros, also after a power cut */
  readonly isZeros: boolean;
}

export interface OwnedParts {
  readonly image: Disk;
  /** the image, or its data file */
  readonly data: Disk;
  readonly header: Header;
  readonly l1: L1Place;
  readonly session: Session;
  readonly refcounts: Refcounts;
  readonly barrier: Barrier;
  /** threads must not write any more */
  stopThreads(): void;
}

export class Owned {
  readonly #parts: OwnedParts;
  readonly #clusterBytes: number;
  #tables: L2Tables | null = null;
  readonly #l2Places = new Set<number>();
  readonly #owning = new Map<number, Promise<void>>();
  /** places that keep no data, with the time at which they became zeros */
  readonly #zeroed = new Map<number, number>();
  #stopped: FusetapError | null = null;
  #hasLeaks = false;

  constructor(parts: OwnedParts) {
    this.#parts = parts;
    this.#clusterBytes = parts.header.clusterBytes;
  }

  /** Takes the tables of the image, whose `judge` is `this.judge`. */
  watch(tables: L2Tables): void {
    this.#tables = tables;
    this.#l2Places.clear();
    const { session, refcounts } = this.#parts;
    if (session.isCorrupt) this.#stop('it is marked as corrupt');
    else if (refcounts.damage !== null) this.#stop(refcounts.damage);
    for (const place of tables.places()) {
      const isTwice = this.#l2Places.has(place);
      if (isTwice || this.#isTable(place)) this.#stop('an L2 table is also used for something else');
      this.#l2Places.add(place);
    }
  }

  /** Whether threads may write clusters whose refcount is 1. */
  get mayWriteInPlace(): boolean {
    return this.#stopped === null && this.#parts.session.hasBegun;
  }

  /** Must have resolved before data is written. @throws FusetapError FAILED, errno EIO, if nothing may be written */
  async begin(): Promise<void> {
    this.mustBeSound();
    await this.#parts.session.begin();
  }

  /** @throws FusetapError FAILED, errno EIO, if the tables that were read contradict each other */
  mustBeSound(): void {
    if (this.#stopped === null) return;
    // the next program that opens it must know. Only a write changes the image, so this is not done when it is found
    void this.#parts.session.markCorrupt().catch(() => {});
    throw this.#stopped;
  }

  /** Makes the L2 table of a guest cluster one that may change. @throws as begin; NO_SPACE */
  async ownTable(l1Index: number): Promise<void> {
    await this.begin();
    await this.#parts.session.beginAllocating();
    await this.#completeEnd();
    const owning = this.#owning.get(l1Index) ?? this.#ownTable(l1Index).finally(() => this.#owning.delete(l1Index));
    this.#owning.set(l1Index, owning);
    await owning;
  }

  /** An image that was cut may end within a table: what is written behind its end would be lost. */
  async #completeEnd(): Promise<void> {
    const { image } = this.#parts;
    const end = Math.ceil(image.size / this.#clusterBytes) * this.#clusterBytes;
    if (image.size < end) await image.growth?.grow(end);
  }

  async #ownTable(l1Index: number): Promise<void> {
    const tables = this.#tables as L2Tables;
    const old = await tables.get(l1Index);
    this.mustBeSound();
    if (old?.copied) return;
    const { image, barrier } = this.#parts;
    const { start } = await this.#take(1);
    const place = start * this.#clusterBytes;
    const bytes = old === null ? Buffer.alloc(this.#clusterBytes) : Buffer.from(old.bytes);
    try {
      await writeAll(image, bytes, place);
      // the L1 entry must never name a table that is not there
      await barrier.pass();
      await tables.place(l1Index, place, bytes, COPIED);
    } catch (error) {
      this.#hasLeaks = true;
      throw error;
    }
    this.#l2Places.add(place);
    if (old !== null) await this.#release([old.place / this.#clusterBytes]);
  }

  /** A place for guest clusters. @param most clusters @throws FusetapError NO_SPACE */
  async allocate(guestCluster: number, most: number): Promise<Place> {
    const { header, data } = this.#parts;
    if (header.hasDataFile) {
      // in a data file, each cluster has the place that it has in the disk
      const place = guestCluster * this.#clusterBytes;
      const isZeros = place >= data.size;
      const end = place + most * this.#clusterBytes;
      if (end > data.size) await data.growth?.grow(end);
      return { place, count: most, isZeros };
    }
    const { start, count } = await this.#take(most);
    return { place: start * this.#clusterBytes, count, isZeros: true };
  }

  async #take(most: number): Promise<Run> {
    try {
      const run = await this.#parts.refcounts.take(most);
      for (let i = 0; i < run.count; i++) {
        if (!this.#isTableOrL2((run.start + i) * this.#clusterBytes)) continue;
        throw this.#stop('a cluster is counted as free, but a table lies there');
      }
      return run;
    } catch (error) {
      this.#hasLeaks = true;
      throw error;
    }
  }

  /** Takes back a place that nothing refers to. */
  async giveBack({ place, count }: Place): Promise<void> {
    if (this.#parts.header.hasDataFile) return;
    const run = { start: place / this.#clusterBytes, count };
    await this.#parts.refcounts.giveBack(run).catch(() => {
      this.#hasLeaks = true;
    });
  }

  /** A table may have changed in the image, or not: clusters may be counted that nobody uses. */
  tableFailed(): void {
    this.#hasLeaks = true;
  }

  /**
   * Frees what entries named. The image must not have the entries any more.
   * @returns the clusters that nobody uses any more; they may keep their bytes until the disk is closed
   */
  async releaseAll(entries: readonly ClusterEntry[]): Promise<readonly Run[]> {
    const clusters = this.#parts.header.hasDataFile ? [] : entries.flatMap((entry) => this.#clustersOf(entry));
    return clusters.length === 0 ? [] : await this.#release(clusters);
  }

  /** The clusters that an entry refers to: a compressed stream may be in several. */
  #clustersOf({ hasPlace, place, streamBytes }: ClusterEntry): number[] {
    if (!hasPlace) return [];
    const first = Math.floor(place / this.#clusterBytes);
    const last = Math.floor((place + Math.max(streamBytes, 1) - 1) / this.#clusterBytes);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  }

  async #release(clusters: readonly number[]): Promise<readonly Run[]> {
    for (const cluster of clusters) this.#zeroed.delete(cluster * this.#clusterBytes);
    try {
      return await this.#parts.refcounts.releaseAll(clusters);
    } catch {
      // the write that freed them has succeeded
      this.#hasLeaks = true;
      return [];
    }
  }

  /** A place is made zeros now: they are durable after the next flush. */
  becomesZeros(place: number): void {
    if (this.#zeroed.size < MOST_ZEROED) this.#zeroed.set(place, this.#parts.barrier.now);
  }

  /** What keeps no data at a place is zeros, also after a power cut. */
  staysZeros({ place, count }: Place): void {
    for (let i = 0; i < count; i++) {
      if (this.#zeroed.size < MOST_ZEROED) this.#zeroed.set(place + i * this.#clusterBytes, BEFORE_ALL);
    }
  }

  /** What a place has that keeps no data for a cluster is not known any more. */
  becomesUnknown(place: number): void {
    this.#zeroed.delete(place);
  }

  /** Whether the parts of a place that keep no data are zeros, also after a power cut. */
  areZeros(place: number): boolean {
    const time = this.#zeroed.get(place);
    return time !== undefined && this.#parts.barrier.hasPassed(time);
  }

  /** Judges a table before it is used: what it says may be written in place must belong to nobody else. */
  async judge(table: L2Table): Promise<void> {
    if (this.#stopped !== null) return;
    const clusters: number[] = table.copied ? [table.place / this.#clusterBytes] : [];
    const tables = this.#tables as L2Tables;
    for (let cluster = 0; cluster < tables.entries; cluster++) {
      const entry = validEntry(tables, table, cluster);
      if (entry === null || !entry.hasPlace) continue;
      if (this.#parts.header.hasDataFile) {
        if (this.#isInDataFile(entry.place, table.l1Index * tables.entries + cluster)) continue;
        this.#stop(`an entry of an L2 table names byte ${entry.place} of its data file`);
        return;
      }
      if (entry.kind !== 'compressed' && this.#isTableOrL2(entry.place)) {
        this.#stop(`an entry of an L2 table names a table at byte ${entry.place}`);
        return;
      }
      if (entry.copied) clusters.push(entry.place / this.#clusterBytes);
    }
    const shared = await this.#findShared(clusters);
    if (shared === null) return;
    const { cluster, refcount } = shared;
    this.#stop(
      cluster < 0
        ? 'a refcount block cannot be read'
        : `cluster ${cluster} is used once, but its refcount is ${refcount}`,
    );
  }

  /** @throws errors of the image: then only this table cannot be read */
  async #findShared(clusters: number[]): Promise<{ cluster: number; refcount: number } | null> {
    try {
      return await this.#parts.refcounts.findShared(clusters.sort((a, b) => a - b));
    } catch (error) {
      if (!isDamage(error)) throw error;
      return { cluster: -1, refcount: -1 };
    }
  }

  /** Whether a guest cluster may be at a place in the data file. Refcounts say nothing of it. */
  #isInDataFile(place: number, guestCluster: number): boolean {
    const { header, data } = this.#parts;
    if (header.hasRawData) return place === guestCluster * this.#clusterBytes;
    return place < Math.max(data.size, header.size);
  }

  #isTableOrL2(place: number): boolean {
    return this.#isTable(place) || this.#l2Places.has(place);
  }

  /** Whether a cluster is the header, or part of a table that is not an L2 table. */
  #isTable(place: number): boolean {
    const { header, l1, refcounts } = this.#parts;
    const snapshotBytes = header.snapshots.count * SNAPSHOT_ENTRY_BYTES;
    return (
      place < this.#clusterBytes ||
      isIn(place, l1.offset, l1.entries * 8) ||
      refcounts.isOwn(place) ||
      isIn(place, header.snapshots.offset, snapshotBytes)
    );
  }

  #stop(why: string): FusetapError {
    const { code, message } = broken(FORMAT, `${why}; nothing is written to it any more`);
    this.#parts.stopThreads();
    this.#stopped = new FusetapError(code, message, {
      hint: 'detach, then repair it: qemu-img check -r all IMAGE',
      errno: constants.errno.EIO,
    });
    return this.#stopped;
  }

  /** For a clean end: all requests have ended. */
  async close(): Promise<void> {
    const { refcounts, session } = this.#parts;
    await refcounts.close();
    await session.end(!this.#hasLeaks && this.#stopped === null);
  }
}

/** Whether an error says that the image is damaged: errors of its file have an errno. */
function isDamage(error: unknown): boolean {
  return error instanceof FusetapError && error.errno === undefined;
}

function isIn(place: number, offset: number, bytes: number): boolean {
  return bytes > 0 && place >= offset && place < offset + bytes;
}

/** The entry of a table; null if it is not valid: the request that needs it gets the error. */
function validEntry(tables: L2Tables, table: L2Table, cluster: number): ClusterEntry | null {
  try {
    return tables.entry(table, cluster);
  } catch {
    return null;
  }
}
