/**
 * The refcounts of an image: who uses each cluster. They hand out free clusters, and take them back.
 *
 *      refcount table ──► refcount block (memory: the blocks used last) ──► refcount
 *
 *      free clusters ──► zeros, durable ──► refcount 1, written ──► pool ──► take()
 *
 * Clusters of the pool are counted as used in the image before anybody gets one. So if this process is killed, clusters
 * may be counted that nobody uses, but never the reverse. All clusters of the pool read as zeros, also after a power cut.
 *
 * A cluster that is freed is not handed out again in this session: requests may still read it, and the removal of what
 * referred to it may not be durable yet.
 */
import type { Disk } from '../../disk.js';
import { broken, deviceFull } from '../../formats/faults.js';
import { readUpTo } from '../../formats/read.js';
import type { Barrier } from '../../lookup/barrier.js';
import { writeAll } from '../../lookup/write-all.js';
import { FORMAT, HEADER_AT, type Header, refcountsPerBlock } from '../format/header.js';
import { RefcountBlock } from '../format/refcount-block.js';

/** how much is taken for the pool at one time */
const POOL_BYTES = 4 << 20;
/** a shorter run of free clusters is used only if nothing else is left: each run costs a flush */
const SHORT_RUN = 16;
const MOST_BLOCK_BYTES = 8 << 20;
const FEWEST_BLOCKS = 4;

/** Host clusters that follow one another. */
export interface Run {
  readonly start: number;
  readonly count: number;
}

export interface RefcountOptions {
  readonly image: Disk;
  readonly header: Header;
  readonly barrier: Barrier;
}

export class Refcounts {
  readonly #image: Disk;
  readonly #barrier: Barrier;
  readonly #clusterBytes: number;
  readonly #order: number;
  readonly #perBlock: number;
  #mayReuse = false;
  #place = 0;
  #table: Buffer = Buffer.alloc(0);
  readonly #blocks = new Map<number, RefcountBlock>();
  readonly #blockPlaces = new Set<number>();
  /** what is wrong with the table: nothing can be allocated; null if nothing is */
  damage: string | null = null;
  /** a new table whose place may be in the header already: it must be used before anything is allocated */
  #unfinished: (() => Promise<void>) | null = null;
  #pool: Run[] = [];
  readonly #freed = new Set<number>();
  /** where the search for free clusters goes on; behind `#end` all are free */
  #cursor = 0;
  #end = 0;
  #lastWork: Promise<void> = Promise.resolve();

  constructor({ image, header, barrier }: RefcountOptions) {
    this.#image = image;
    this.#barrier = barrier;
    this.#clusterBytes = header.clusterBytes;
    this.#order = header.refcountOrder;
    this.#perBlock = refcountsPerBlock(header);
  }

  /**
   * Reads the refcount table. Must have resolved before any other call.
   * @param mayReuse free clusters below the end of the image may be used: it was checked that nothing refers to them
   */
  async load({ refcountTable: { offset, clusters } }: Header, mayReuse: boolean): Promise<void> {
    this.#mayReuse = mayReuse;
    this.#place = offset;
    this.#table = Buffer.alloc(clusters * this.#clusterBytes);
    (await readUpTo(this.#image, offset, this.#table.length)).copy(this.#table);
    this.#blocks.clear();
    this.#blockPlaces.clear();
    this.damage = null;
    for (let index = 0; index < this.#table.length / 8; index++) {
      const place = this.#blockPlace(index);
      if (place === 0) continue;
      if (this.#blockPlaces.has(place) || !this.#isInside(place)) {
        // a table that names one block a million times would take as long to look through
        this.damage = 'an entry of its refcount table is not valid';
        return;
      }
      this.#blockPlaces.add(place);
    }
    await this.#findEnd();
  }

  #isInside(place: number): boolean {
    const end = Math.ceil(this.#image.size / this.#clusterBytes) * this.#clusterBytes;
    return place % this.#clusterBytes === 0 && place + this.#clusterBytes <= end;
  }

  /** Whether a byte of the image belongs to the refcount table or to a block. @param place of a cluster */
  isOwn(place: number): boolean {
    return this.#blockPlaces.has(place) || (place >= this.#place && place < this.#place + this.#table.length);
  }

  /**
   * Looks up many clusters. @returns the first whose refcount is not 1; null if there is none
   * @throws FusetapError FAILED if a block is damaged
   */
  async findShared(clusters: readonly number[]): Promise<{ cluster: number; refcount: number } | null> {
    let found: { cluster: number; refcount: number } | null = null;
    await this.#inTurn(async () => {
      let [index, block]: [number, RefcountBlock | null] = [-1, null];
      for (const cluster of clusters) {
        const wanted = Math.floor(cluster / this.#perBlock);
        if (wanted !== index) [index, block] = [wanted, await this.#block(wanted)];
        const refcount = block?.get(cluster % this.#perBlock) ?? 0;
        if (refcount === 1) continue;
        found = { cluster, refcount };
        return;
      }
    });
    return found;
  }

  /**
   * Hands out clusters that follow one another: they read as zeros, and their refcount is 1.
   * @param most at least 1
   * @returns at least one cluster, at most `most`
   * @throws FusetapError NO_SPACE if the image cannot become larger
   */
  async take(most: number): Promise<Run> {
    for (;;) {
      const [run] = this.#pool;
      if (run !== undefined) {
        const count = Math.min(run.count, most);
        if (count === run.count) this.#pool.shift();
        else this.#pool[0] = { start: run.start + count, count: run.count - count };
        return { start: run.start, count };
      }
      await this.#inTurn(async () => {
        if (this.#pool.length === 0) await this.#fillPool(most);
      });
    }
  }

  /** Takes back clusters of `take` that nothing refers to, although their bytes may have been written. */
  async giveBack(run: Run): Promise<void> {
    await this.#inTurn(async () => {
      await this.#makeZeros(run);
      this.#pool.push(run);
    });
  }

  /**
   * Counts one reference less for each cluster; one that is named twice loses two. What referred to them must not do so any
   * more in the image.
   * @returns those that nobody uses any more
   * @throws FusetapError FAILED if a cluster is counted as free; others may have been released
   */
  async releaseAll(clusters: readonly number[]): Promise<Run[]> {
    const freed: Run[] = [];
    await this.#inTurn(async () => {
      for (const { run, times } of runsOf(clusters, this.#perBlock)) {
        for (let cluster = run.start; cluster < run.start + run.count; ) {
          const part = await this.#releaseSome(cluster, run.start + run.count, times);
          if (part.isFree) freed.push({ start: cluster, count: part.count });
          cluster += part.count;
        }
      }
    });
    return freed;
  }

  /** Releases the first clusters of a run in one block that have the same refcount, each `times` times. */
  async #releaseSome(start: number, end: number, times: number): Promise<{ count: number; isFree: boolean }> {
    const block = await this.#block(Math.floor(start / this.#perBlock));
    const refcount = block?.get(start % this.#perBlock) ?? 0;
    if (block === null || refcount < times)
      throw broken(FORMAT, `its cluster ${start} is used, but is counted as free`);
    let count = 1;
    while (start + count < end && block.get((start + count) % this.#perBlock) === refcount) count++;
    const isFree = refcount === times;
    for (let cluster = start; isFree && cluster < start + count; cluster++) this.#freed.add(cluster);
    await this.#set(block, { start, count }, refcount - times);
    return { count, isFree };
  }

  /** Counts the rest of the pool as free. For a clean end. */
  async close(): Promise<void> {
    await this.#inTurn(async () => {
      const pool = this.#pool;
      this.#pool = [];
      for (const run of pool) {
        const block = await this.#block(Math.floor(run.start / this.#perBlock));
        if (block !== null) await this.#set(block, run, 0);
      }
    });
  }

  /** One after the other, also if one fails. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    const own = this.#lastWork.then(work);
    this.#lastWork = own.catch(() => {});
    return own;
  }

  #blockPlace(index: number): number {
    const at = index * 8;
    if (at >= this.#table.length) return 0;
    return this.#table.readUInt32BE(at) * 2 ** 32 + this.#table.readUInt32BE(at + 4);
  }

  /** @returns null if there is no such block: all its refcounts are 0 */
  async #block(index: number): Promise<RefcountBlock | null> {
    const known = this.#blocks.get(index);
    if (known !== undefined) {
      this.#blocks.delete(index);
      this.#blocks.set(index, known);
      return known;
    }
    const place = this.#blockPlace(index);
    if (place === 0) return null;
    const isInside =
      place + this.#clusterBytes <= Math.ceil(this.#image.size / this.#clusterBytes) * this.#clusterBytes;
    if (place % this.#clusterBytes !== 0 || !isInside)
      throw broken(FORMAT, 'an entry of its refcount table is not valid');
    const bytes = Buffer.alloc(this.#clusterBytes);
    (await readUpTo(this.#image, place, bytes.length)).copy(bytes);
    // another call may have read it meanwhile
    return this.#blocks.get(index) ?? this.#keep(index, new RefcountBlock(bytes, place, this.#order));
  }

  #keep(index: number, block: RefcountBlock): RefcountBlock {
    const most = Math.max(FEWEST_BLOCKS, Math.floor(MOST_BLOCK_BYTES / this.#clusterBytes));
    this.#blocks.set(index, block);
    for (const oldest of this.#blocks.keys()) {
      if (this.#blocks.size <= most) break;
      this.#blocks.delete(oldest);
    }
    return block;
  }

  /** Writes one refcount for a run of clusters of a block. */
  async #set(block: RefcountBlock, { start, count }: Run, value: number): Promise<void> {
    const { from, to } = block.fill(start % this.#perBlock, count, value);
    try {
      await writeAll(this.#image, block.bytes.subarray(from, to), block.place + from);
    } catch (error) {
      // the image may have the old refcounts: read them again
      for (const [index, other] of this.#blocks) if (other === block) this.#blocks.delete(index);
      throw error;
    }
  }

  /** Finds the first cluster behind all that are used. */
  async #findEnd(): Promise<void> {
    const isFile = this.#image.growth !== undefined;
    let end = isFile ? Math.ceil(this.#image.size / this.#clusterBytes) : 0;
    for (let index = this.#table.length / 8 - 1; index >= 0; index--) {
      if (end >= (index + 1) * this.#perBlock) break;
      const last = (await this.#block(index))?.lastUsed() ?? -1;
      if (last < 0) continue;
      end = Math.max(end, index * this.#perBlock + last + 1);
      break;
    }
    this.#end = end;
  }

  async #fillPool(wanted: number): Promise<void> {
    const most = Math.max(wanted, Math.min(this.#perBlock, POOL_BYTES / this.#clusterBytes));
    if (this.#unfinished !== null) return await this.#unfinished();
    const run = await this.#findFree(Math.min(most, this.#perBlock));
    const index = Math.floor(run.start / this.#perBlock);
    if (index >= this.#table.length / 8) return await this.#growTable(index + 1);
    await this.#makeZeros(run);
    const block = await this.#block(index);
    if (block !== null) {
      await this.#set(block, run, 1);
      this.#pool.push(run);
      return;
    }
    await this.#addBlock(index, run);
    if (run.count > 1) this.#pool.push({ start: run.start + 1, count: run.count - 1 });
  }

  /** Makes a block that counts a run of clusters, of which the first is the block. */
  async #addBlock(index: number, run: Run): Promise<void> {
    const place = run.start * this.#clusterBytes;
    const block = new RefcountBlock(Buffer.alloc(this.#clusterBytes), place, this.#order);
    block.fill(run.start % this.#perBlock, run.count, 1);
    await writeAll(this.#image, block.bytes, place);
    const entry = Buffer.alloc(8);
    entry.writeBigUInt64BE(BigInt(place));
    await writeAll(this.#image, entry, this.#place + index * 8);
    entry.copy(this.#table, index * 8);
    this.#blockPlaces.add(place);
    this.#keep(index, block);
  }

  /** Free clusters that follow one another, all in the range of one block. The search does not return to them. */
  async #findFree(most: number): Promise<Run> {
    const canGrow = this.#image.growth !== undefined;
    if (this.#mayReuse) {
      const found = await this.#searchHole(most, canGrow ? Math.min(SHORT_RUN, most) : 1);
      if (found !== null) return found;
    }
    const start = this.#end;
    const inDisk = canGrow ? Number.POSITIVE_INFINITY : Math.floor(this.#image.size / this.#clusterBytes) - start;
    const inBlock = this.#perBlock - (start % this.#perBlock);
    const count = Math.min(most, inBlock, inDisk);
    if (count <= 0) throw deviceFull();
    this.#end = start + count;
    return { start, count };
  }

  /** Searches below the end, from the cursor on. */
  async #searchHole(most: number, least: number): Promise<Run | null> {
    while (this.#cursor < this.#end) {
      const index = Math.floor(this.#cursor / this.#perBlock);
      const end = Math.min(this.#end, (index + 1) * this.#perBlock);
      const block = await this.#block(index);
      const isFree = (cluster: number): boolean =>
        (block === null || block.get(cluster % this.#perBlock) === 0) && !this.#freed.has(cluster);
      let start = this.#cursor;
      while (start < end && !isFree(start)) start++;
      let stop = start;
      while (stop < end && stop - start < most && isFree(stop)) stop++;
      this.#cursor = Math.max(stop, start);
      if (stop - start >= least) return { start, count: stop - start };
    }
    return null;
  }

  /** Makes clusters read as zeros, also after a power cut. */
  async #makeZeros({ start, count }: Run): Promise<void> {
    const from = start * this.#clusterBytes;
    const to = (start + count) * this.#clusterBytes;
    const old = this.#image.size;
    if (to > old) await this.#image.growth?.grow(to);
    if (from >= old) return;
    await this.#image.zero(from, Math.min(to, old) - from, { punch: true });
    await this.#barrier.pass();
  }

  /**
   * Moves the refcount table to a place where it has room, with blocks for itself.
   *
   *      [new table][its new blocks] ──► durable ──► header, durable ──► the old table is free
   */
  async #growTable(leastEntries: number): Promise<void> {
    const start = this.#end;
    const { clusters, blocks } = this.#planTable(start, leastEntries);
    const count = clusters + blocks.length;
    if (this.#image.growth === undefined && (start + count) * this.#clusterBytes > this.#image.size) throw deviceFull();
    this.#end = start + count;
    await this.#makeZeros({ start, count });
    const table = Buffer.alloc(clusters * this.#clusterBytes);
    this.#table.copy(table);
    for (const [i, index] of blocks.entries()) {
      const place = (start + clusters + i) * this.#clusterBytes;
      table.writeBigUInt64BE(BigInt(place), index * 8);
      const block = new RefcountBlock(Buffer.alloc(this.#clusterBytes), place, this.#order);
      this.#countPart(block, index, { start, count });
      await writeAll(this.#image, block.bytes, place);
    }
    await this.#countInOldBlocks(blocks, { start, count });
    await writeAll(this.#image, table, start * this.#clusterBytes);
    await this.#barrier.pass();
    const field = Buffer.alloc(12);
    field.writeBigUInt64BE(BigInt(start * this.#clusterBytes));
    field.writeUInt32BE(clusters, 8);
    this.#unfinished = async () => {
      await writeAll(this.#image, field, HEADER_AT.refcountTable);
      await this.#barrier.pass();
      this.#unfinished = null;
      await this.#useTable(table, { start, count });
    };
    await this.#unfinished();
  }

  /** How many clusters the new table has, and which blocks are missing for it and for themselves. */
  #planTable(start: number, leastEntries: number): { clusters: number; blocks: number[] } {
    // room for half as much again, so that it does not move often
    let clusters = Math.ceil((leastEntries * 8 * 1.5) / this.#clusterBytes);
    for (let count = 0; ; ) {
      const missing: number[] = [];
      const last = Math.floor((start + clusters + count - 1) / this.#perBlock);
      for (let index = Math.floor(start / this.#perBlock); index <= last; index++) {
        if (this.#blockPlace(index) === 0) missing.push(index);
      }
      const needed = Math.ceil(((last + 1) * 8) / this.#clusterBytes);
      if (missing.length === count && needed <= clusters) return { clusters, blocks: missing };
      count = Math.max(count, missing.length);
      clusters = Math.max(clusters, needed);
      if (missing.length < count) return { clusters, blocks: missing };
    }
  }

  /** Counts the part of a run that is in the range of a block. */
  #countPart(block: RefcountBlock, index: number, { start, count }: Run): void {
    const from = Math.max(start, index * this.#perBlock);
    const to = Math.min(start + count, (index + 1) * this.#perBlock);
    if (to > from) block.fill(from % this.#perBlock, to - from, 1);
  }

  async #countInOldBlocks(fresh: readonly number[], { start, count }: Run): Promise<void> {
    const last = Math.floor((start + count - 1) / this.#perBlock);
    for (let index = Math.floor(start / this.#perBlock); index <= last; index++) {
      const block = fresh.includes(index) ? null : await this.#block(index);
      if (block === null) continue;
      const from = Math.max(start, index * this.#perBlock);
      const to = Math.min(start + count, (index + 1) * this.#perBlock);
      await this.#set(block, { start: from, count: to - from }, 1);
    }
  }

  async #useTable(table: Buffer, { start, count }: Run): Promise<void> {
    const old = { start: this.#place / this.#clusterBytes, count: this.#table.length / this.#clusterBytes };
    this.#table = table;
    this.#place = start * this.#clusterBytes;
    for (let i = table.length / this.#clusterBytes; i < count; i++) {
      this.#blockPlaces.add((start + i) * this.#clusterBytes);
    }
    for (let i = 0; i < old.count; i++) {
      const cluster = old.start + i;
      const block = await this.#block(Math.floor(cluster / this.#perBlock));
      this.#freed.add(cluster);
      if (block !== null) await this.#set(block, { start: cluster, count: 1 }, 0);
    }
  }
}

/** Sorts clusters into runs, each in one block, of clusters that are named the same number of times. */
function runsOf(clusters: readonly number[], perBlock: number): { run: Run; times: number }[] {
  const times = new Map<number, number>();
  for (const cluster of clusters) times.set(cluster, (times.get(cluster) ?? 0) + 1);
  const runs: { run: Run; times: number }[] = [];
  for (const [cluster, count] of [...times].sort(([a], [b]) => a - b)) {
    const last = runs.at(-1);
    const goesOn = last?.times === count && last.run.start + last.run.count === cluster && cluster % perBlock !== 0;
    if (last !== undefined && goesOn) last.run = { ...last.run, count: last.run.count + 1 };
    else runs.push({ run: { start: cluster, count: 1 }, times: count });
  }
  return runs;
}
