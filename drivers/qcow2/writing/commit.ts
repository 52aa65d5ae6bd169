/**
 * Moves what a qcow2 image has over its backing file, the base, into the base, while clients read and write the disk.
 *
 *      some clusters, locked ──► map: ask, wait for the threads ──► their bytes written to the base ──► base flushed
 *        ──► L2 entries: none ──► image flushed ──► reads that began before have ended ──► clusters freed, holes
 *
 * An entry is removed only when the base has its bytes and would still have them after a power cut. Old clusters are
 * freed only when no entry names them any more, would name them after a power cut, or is in use by a read. So the disk has
 * the same bytes at every moment, wherever this stops. If it fails before the entries change, the base has bytes that the
 * image hides.
 *
 * Writes to the clusters of a batch wait for the batch. All others go on, into the image, also behind the place that the
 * commit has reached.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { allDone } from '../../all-done.js';
import { copyRuns } from '../../copying/copy-runs.js';
import type { Run } from '../../copying/zero-pages.js';
import type { Disk } from '../../disk.js';
import type { CommitContext } from '../../driver.js';
import { FusetapError } from '../../errors.js';
import { writeAll } from '../../lookup/write-all.js';
import type { Granules } from '../../map/range-lock.js';
import type { UnderWay } from '../../map/under-way.js';
import { type ClusterEntry, putEntry } from '../format/entries.js';
import type { WriterParts } from './writer-parts.js';

/** bytes that are moved before the flushes: many clusters share them, but writes to these clusters wait so long */
const BATCH_BYTES = 16 << 20;
/** clusters that only become zeros cost little, but entries in memory */
const BATCH_CLUSTERS = 1 << 16;
/** each write of a client looks at them */
const BATCH_RANGES = 1024;
const BATCH_TABLE_BYTES = 1 << 20;
/** a process that looks for tables in an empty disk lets others work after so many */
const TURN_TABLES = 4096;

export interface CommitParts extends WriterParts {
  readonly backing: Disk;
  /** the reads of clients on the event loop */
  readonly reads: UnderWay;
  /** internal snapshots see the base too */
  readonly hasSnapshots: boolean;
}

/** Clusters that are over the base, in order; a range is in one L2 table. */
interface Batch {
  readonly ranges: readonly Granules[];
  /** the cluster to go on with */
  readonly next: number;
}

export class Committer {
  readonly #parts: CommitParts;
  readonly #clusterBytes: number;
  /** of the disk */
  readonly #clusters: number;
  #doneBytes = 0;
  #totalBytes = 0;

  constructor(parts: CommitParts) {
    this.#parts = parts;
    this.#clusterBytes = parts.tables.shape.clusterBytes;
    this.#clusters = Math.ceil(parts.size / this.#clusterBytes);
  }

  /** @see RawDisk.commit */
  async commit(context: CommitContext): Promise<void> {
    this.#refuse();
    await this.#fitBase();
    this.#doneBytes = 0;
    this.#totalBytes = await this.#countData(context.signal);
    context.progress(0, this.#totalBytes);
    for (let at = 0; at < this.#clusters; ) {
      const { ranges, next } = await this.#nextBatch(at, context.signal);
      context.signal.throwIfAborted();
      if (ranges.length > 0) await this.#parts.lock.runAll(ranges, () => this.#move(ranges, context));
      at = next;
    }
  }

  /** @throws FusetapError if it would do harm, or cannot be done */
  #refuse(): void {
    const { backing, hasSnapshots, isRawData } = this.#parts;
    if (backing.readOnly) {
      throw new FusetapError('DENIED', 'its base can only be read', {
        hint: 'a base of this format cannot be written: save the disk to a file with fusetap save',
      });
    }
    if (hasSnapshots) {
      throw new FusetapError('UNSUPPORTED', 'it has internal snapshots, whose bytes would change with the base', {
        hint: 'delete them first, while it is detached: qemu-img snapshot -d NAME IMAGE',
      });
    }
    if (!isRawData) return;
    throw new FusetapError('UNSUPPORTED', 'its data file is raw, and must keep the bytes of the disk', {
      hint: 'use an image without a raw data file',
    });
  }

  /** Makes the base as large as the disk. */
  async #fitBase(): Promise<void> {
    const { backing, size } = this.#parts;
    if (backing.size >= size) return;
    const { growth } = backing;
    if (growth === undefined) {
      throw new FusetapError(
        'UNSUPPORTED',
        `it has ${size} bytes, but its base has only ${backing.size} and cannot grow`,
        {
          hint: 'make the base larger while both are detached, with qemu-img resize for a qcow2 image',
        },
      );
    }
    await inBase(async () => {
      if ((await growth.measure()) < size) await growth.grow(size);
    });
  }

  /** How many bytes will be moved, for the progress. */
  async #countData(signal: AbortSignal): Promise<number> {
    const { reader, size } = this.#parts;
    let sum = 0;
    for (let at = 0; at < size; ) {
      signal.throwIfAborted();
      const changes = await reader.changes(at, size - at);
      for (const { kind, length } of changes) sum += kind === 'data' ? length : 0;
      const last = changes.at(-1);
      if (last === undefined) break;
      at = last.offset + last.length;
    }
    return sum;
  }

  /** The next clusters over the base, as they are now. */
  async #nextBatch(from: number, signal: AbortSignal): Promise<Batch> {
    const { tables } = this.#parts;
    const batch = new Filling(this.#clusterBytes);
    let at = from;
    while (at < this.#clusters && !batch.isFull) {
      const l1Index = tables.l1IndexOf(at);
      const end = Math.min(this.#clusters, (l1Index + 1) * tables.entries);
      const table = tables.isNone(l1Index) ? null : await tables.get(l1Index);
      if (table !== null || l1Index % TURN_TABLES === 0) await nextTurn();
      signal.throwIfAborted();
      if (table === null) at = end;
      else batch.beginTable();
      for (; at < end && !batch.isFull; at++) batch.add(at, tables.entry(table, at).kind);
    }
    return { ranges: batch.ranges, next: at };
  }

  /** Moves clusters that are locked. */
  async #move(ranges: readonly Granules[], context: CommitContext): Promise<void> {
    const { tables, owned, map, barrier, reads } = this.#parts;
    for (const l1Index of new Set(ranges.map(({ first }) => tables.l1IndexOf(first)))) await owned.ownTable(l1Index);
    const spans = ranges.map((range) => this.#spanOf(range));
    const granules = map === null ? [] : spans.map(({ offset, length }) => map.map.wholeGranules(offset, length));
    let old: ClusterEntry[];
    try {
      await map?.map.withdrawAll(granules);
      await this.#copy(spans, context);
      old = await this.#removeEntries(ranges);
    } finally {
      for (const { first, count } of granules) map?.map.restore(first, count);
      map?.movedBelow(spans);
    }
    try {
      await barrier.pass();
    } catch (error) {
      owned.tableFailed();
      throw error;
    }
    await reads.settled();
    await this.#free(old);
  }

  /** The bytes of clusters; the last one of the disk may be cut. */
  #spanOf({ first, count }: Granules): { offset: number; length: number } {
    const offset = first * this.#clusterBytes;
    return { offset, length: Math.min(count * this.#clusterBytes, this.#parts.size - offset) };
  }

  /** Makes the base have the bytes of the disk, durable. */
  async #copy(
    spans: readonly { offset: number; length: number }[],
    { signal, progress }: CommitContext,
  ): Promise<void> {
    const { reader, backing } = this.#parts;
    const runs: Run[] = [];
    for (const { offset, length } of spans) {
      for (const { kind, offset: at, length: bytes } of await reader.finder.find(offset, length)) {
        if (kind === 'zeros') await inBase(() => backing.zero(at, bytes, { punch: true }));
        else if (kind !== 'none') appendRun(runs, at, at + bytes);
      }
    }
    const before = this.#doneBytes;
    const told = (doneBytes: number): void => {
      this.#doneBytes = before + doneBytes;
      // clients may write meanwhile, so there may be more than was counted
      this.#totalBytes = Math.max(this.#totalBytes, this.#doneBytes);
      progress(this.#doneBytes, this.#totalBytes);
    };
    await copyRuns(runs, { signal, progress: told }, async (chunk, from) => {
      await reader.read(chunk, from);
      await inBase(() => writeAll(backing, chunk, from));
    });
    await inBase(() => backing.flush());
  }

  /** Makes the entries of clusters none. @returns what they were */
  async #removeEntries(ranges: readonly Granules[]): Promise<ClusterEntry[]> {
    const { tables, owned } = this.#parts;
    const old: ClusterEntry[] = [];
    for (const { first, count } of ranges) {
      const table = await tables.get(tables.l1IndexOf(first));
      for (let cluster = first; cluster < first + count; cluster++) old.push(tables.entry(table, cluster));
    }
    const changes = ranges.map(({ first, count }) => {
      return tables.change(first, count, (bytes) => {
        for (let cluster = first; cluster < first + count; cluster++) this.#putNone(bytes, cluster);
      });
    });
    try {
      await allDone(changes);
    } catch (error) {
      // some entries may have changed: what they named is not free before the refcounts are counted anew
      owned.tableFailed();
      throw error;
    }
    return old;
  }

  #putNone(table: Buffer, cluster: number): void {
    const { entries, entryBytes, shape } = this.#parts.tables;
    const at = (cluster % entries) * entryBytes;
    putEntry(table, at, 0, 0);
    if (shape.hasExtendedL2) table.fill(0, at + 8, at + 16);
  }

  /** Frees what removed entries named, and its space. */
  async #free(old: readonly ClusterEntry[]): Promise<void> {
    const { owned, data, tables } = this.#parts;
    const freed = tables.shape.hasDataFile
      ? old
          .flatMap(({ hasPlace, place }) => (hasPlace ? [place] : []))
          .map((place): Run => [place, place + this.#clusterBytes])
      : (await owned.releaseAll(old)).map(({ start, count }): Run => {
          return [start * this.#clusterBytes, (start + count) * this.#clusterBytes];
        });
    const runs: Run[] = [];
    for (const [from, to] of freed.sort(([a], [b]) => a - b)) appendRun(runs, from, Math.min(to, data.size));
    try {
      for (const [from, to] of runs) await data.zero(from, to - from, { punch: true });
    } catch {
      // the clusters are free, but take space
    }
  }
}

/** Collects the clusters of a batch, in order. */
class Filling {
  readonly ranges: { first: number; count: number }[] = [];
  readonly #clusterBytes: number;
  #bytes = 0;
  #clusters = 0;
  #tables = 0;
  /** ranges of earlier tables */
  #earlier = 0;

  constructor(clusterBytes: number) {
    this.#clusterBytes = clusterBytes;
  }

  get isFull(): boolean {
    const isLong = this.ranges.length >= BATCH_RANGES || this.#clusters >= BATCH_CLUSTERS;
    return isLong || this.#bytes >= BATCH_BYTES || this.#tables > Math.max(1, BATCH_TABLE_BYTES / this.#clusterBytes);
  }

  /** The clusters that follow are in another table, so in another range. */
  beginTable(): void {
    this.#tables += 1;
    this.#earlier = this.ranges.length;
  }

  add(cluster: number, kind: ClusterEntry['kind']): void {
    if (kind === 'none') return;
    this.#clusters += 1;
    if (kind !== 'zeros') this.#bytes += this.#clusterBytes;
    const last = this.ranges.length > this.#earlier ? this.ranges.at(-1) : undefined;
    if (last !== undefined && last.first + last.count === cluster) last.count += 1;
    else this.ranges.push({ first: cluster, count: 1 });
  }
}

/** Adds a range to ranges in order, to the last one if it goes on there. */
function appendRun(runs: Run[], from: number, to: number): void {
  if (to <= from) return;
  const last = runs.at(-1);
  if (last?.[1] === from) runs[runs.length - 1] = [last[0], to];
  else runs.push([from, to]);
}

/** Tells errors of the base from those of the image. */
async function inBase<Result>(work: () => Promise<Result>): Promise<Result> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    const { code, message, hint, errno } = error;
    throw new FusetapError(code, `its base: ${message}`, { hint, errno, operation: 'commit', cause: error });
  }
}
