/**
 * The disk of a snapshot, as the event loop serves it. Threads serve what the map knows, at the same time.
 *
 *      write   the rest of granules from the base ──► memory for holes ──► data ──► states ──► map: writable in place
 *      zero    map: ask, wait for the threads ──► states ──► data becomes a hole ──► map: zeros
 *
 * A write is acknowledged when the states say so. If the server is killed before, the states still name the old bytes, and
 * these are still there. All changes take the lock of their granules; threads write only granules that are PRIVATE.
 * Reads take no lock: each granule is read from where its state says when the read begins. Old bytes of the base stay,
 * and bytes of the memory change only to those of a change that overlaps the read.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { allDone } from '../all-done.js';
import type { Disk } from '../disk.js';
import type { Change, LocateOptions, OpenContext, Place, RawDisk, ZeroOptions } from '../driver.js';
import { FusetapError } from '../errors.js';
import { fromBelow, placedBy } from '../map/places.js';
import { RangeLock } from '../map/range-lock.js';
import { SLICE_GRANULES } from '../map/table.js';
import { GRANULE_BYTES, type Layout, PAGE } from './layout.js';
import type { MemoryCalls } from './memory-calls.js';
import { MEMORY, OWN_FILES, SnapshotMap } from './snapshot-map.js';
import { BASE, isHole, PRIVATE, type Run, States, ZEROED } from './states.js';

/** a discard is done in parts, so that a write does not wait for all of it, and the event loop goes on */
const ZERO_GRANULES = 512 * SLICE_GRANULES;
/** how much is told by one call of `places.locate` or `changes` */
const TOLD = 256;

export interface SnapshotParts {
  readonly base: Disk;
  readonly layout: Layout;
  readonly calls: MemoryCalls;
  readonly memoryFd: number;
  readonly readOnly: boolean;
  readonly mayFill?: OpenContext['mayFill'];
  /** the most memory for the entries of the map; default: that of DiskMap */
  readonly mapBytes?: number;
}

/** A range of granules. */
interface Granules {
  readonly first: number;
  readonly count: number;
}

/** A part of a granule that a write does not change, with its bytes. */
interface Rest {
  readonly at: number;
  readonly bytes: Uint8Array;
}

export function snapshotDisk(parts: SnapshotParts): RawDisk {
  return new Snapshot(parts).disk();
}

class Snapshot {
  readonly #base: Disk;
  readonly #layout: Layout;
  readonly #calls: MemoryCalls;
  readonly #readOnly: boolean;
  readonly #mayFill: NonNullable<OpenContext['mayFill']>;
  readonly #states: States;
  readonly #map: SnapshotMap;
  readonly #lock = new RangeLock();

  constructor(parts: SnapshotParts) {
    const { base, layout, calls, memoryFd, readOnly, mayFill = async () => {}, mapBytes } = parts;
    this.#base = base;
    this.#layout = layout;
    this.#calls = calls;
    this.#readOnly = readOnly;
    this.#mayFill = mayFill;
    this.#states = new States(layout, calls);
    this.#map = new SnapshotMap({ base, layout, states: this.#states, memoryFd, mapBytes });
  }

  disk(): RawDisk {
    const reading: RawDisk = {
      size: this.#layout.sizeBytes,
      map: { map: this.#map.map, start: 0, readOnly: this.#readOnly },
      read: (buffer, offset) => this.#read(buffer, offset),
      ...placedBy({ files: this.#map.files, locate: (...range) => this.#locate(...range) }),
      changes: (offset, length) => this.#changes(offset, length),
      activate: async () => this.#map.load(),
      // the base may be on a network
      giveUp: () => this.#base.giveUp(),
      close: async () => {},
    };
    if (this.#readOnly) return reading;
    return {
      ...reading,
      write: (buffer, offset) => this.#write(buffer, offset),
      zero: (offset, length, options) => this.#zero(offset, length, options),
      // memory is never durable
      flush: async () => {},
    };
  }

  async #read(buffer: Uint8Array, offset: number): Promise<void> {
    const { first, count } = granulesOf(offset, buffer.byteLength);
    const end = offset + buffer.byteLength;
    const runs = runsOf(this.#states.read(first, count), first);
    this.#map.learn(first, count);
    const reads = runs.map(async (run) => {
      const from = Math.max(offset, run.first * GRANULE_BYTES);
      const to = Math.min(end, (run.first + run.count) * GRANULE_BYTES);
      const part = buffer.subarray(from - offset, to - offset);
      if (run.state === PRIVATE) await this.#calls.read(part, from);
      else if (run.state === ZEROED) part.fill(0);
      else await this.#base.read(part, from);
    });
    await Promise.all(reads);
  }

  async #write(buffer: Uint8Array, offset: number): Promise<void> {
    const range = granulesOf(offset, buffer.byteLength);
    await this.#lock.run(range.first, range.count, () => this.#writeLocked(buffer, offset, range));
  }

  async #writeLocked(buffer: Uint8Array, offset: number, { first, count }: Granules): Promise<void> {
    const runs = runsOf(this.#states.read(first, count), first);
    const others = runs.filter(({ state }) => state !== PRIVATE);
    if (others.length === 0) {
      this.#map.learn(first, count);
      return await this.#calls.write(buffer, offset);
    }
    const rests = await this.#rests(offset, offset + buffer.byteLength, others);
    for (const run of others) await this.#mayFill(run.first * GRANULE_BYTES, run.count * GRANULE_BYTES);
    await this.#fillPages(this.#states.holesOfWrite(first, count));
    const writes = [{ at: offset, bytes: buffer }, ...rests].map(({ at, bytes }) => this.#calls.write(bytes, at));
    await allDone(writes);
    this.#states.write(first, count, PRIVATE);
    this.#map.setPrivate(first, count);
  }

  /** The bytes of granules that are not in the memory yet, outside of a range that is written. */
  async #rests(from: number, to: number, runs: readonly Run[]): Promise<Rest[]> {
    const stateAt = (granule: number): number | null =>
      runs.find(({ first, count }) => first <= granule && granule < first + count)?.state ?? null;
    const rest = async (at: number, end: number): Promise<Rest[]> => {
      const state = stateAt(Math.floor(at / GRANULE_BYTES));
      if (at >= end || state === null) return [];
      const bytes = new Uint8Array(end - at);
      if (state === BASE) await this.#base.read(bytes, at);
      return [{ at, bytes }];
    };
    const end = Math.min(this.#layout.sizeBytes, Math.ceil(to / GRANULE_BYTES) * GRANULE_BYTES);
    const both = await Promise.all([rest(from - (from % GRANULE_BYTES), from), rest(to, end)]);
    return both.flat();
  }

  async #fillPages(pages: readonly number[]): Promise<void> {
    for (const page of pages) await this.#mayFill(page, PAGE);
  }

  async #zero(offset: number, length: number, _options: ZeroOptions): Promise<void> {
    const end = offset + length;
    const from = Math.ceil(offset / GRANULE_BYTES);
    const isToEnd = end === this.#layout.sizeBytes;
    const to = isToEnd ? this.#layout.granules : Math.floor(end / GRANULE_BYTES);
    await this.#zeroPart(offset, Math.min(end, from * GRANULE_BYTES));
    for (let first = from; first < to; first += ZERO_GRANULES) {
      const count = Math.min(ZERO_GRANULES, to - first);
      await this.#lock.run(first, count, () => this.#zeroLocked(first, count));
      if (first + count < to) await nextTurn();
    }
    if (!isToEnd) await this.#zeroPart(Math.max(offset, Math.max(from, to) * GRANULE_BYTES), end);
  }

  /** Zeroes a part of one granule. */
  async #zeroPart(from: number, to: number): Promise<void> {
    if (from >= to) return;
    const range = granulesOf(from, to - from);
    await this.#lock.run(range.first, range.count, async () => {
      if (this.#states.read(range.first, 1)[0] === ZEROED) return;
      await this.#writeLocked(new Uint8Array(to - from), from, range);
    });
  }

  /**
   * Asks for the memory of a discard's states. A discard must succeed at the limit, because it frees memory.
   * @returns false if there is none, but each granule has its state in a page that is there already
   * @throws FusetapError NO_SPACE
   */
  async #hasRoomToZero(first: number, count: number): Promise<boolean> {
    try {
      await this.#fillPages(this.#states.holesOfZero(first, count));
      return true;
    } catch (error) {
      const isFull = error instanceof FusetapError && error.code === 'NO_SPACE';
      if (!isFull || this.#states.holesOfWrite(first, count).length > 0) throw error;
      return false;
    }
  }

  async #zeroLocked(first: number, count: number): Promise<void> {
    const { map } = this.#map;
    const bySlices = await this.#hasRoomToZero(first, count);
    // granules that are PRIVATE have data in the memory, as do some that an earlier server did not finish
    const hasData = !isHole(this.#calls, first, count);
    if (hasData) await map.withdraw(first, count);
    try {
      if (bySlices) this.#states.zero(first, count);
      else this.#states.write(first, count, ZEROED);
      // in the same turn: a thread must not read the base when a read here has seen the zeros
      if (!hasData) this.#map.setZeros(first, count);
      if (bySlices) await this.#states.zeroPrivate(first, count);
      if (hasData) await this.#calls.punch(first * GRANULE_BYTES, count * GRANULE_BYTES);
    } catch (error) {
      // some granules may be zeros by now, and others not
      if (!hasData) await map.withdraw(first, count);
      map.restore(first, count);
      throw error;
    }
    if (!hasData) return;
    map.restore(first, count);
    this.#map.setZeros(first, count);
  }

  async #locate(offset: number, length: number, options?: LocateOptions): Promise<Place[]> {
    if (options?.holes) await nextTurn();
    const end = offset + length;
    const places: Place[] = [];
    for (let at = offset; at < end && places.length < TOLD; ) {
      const { state, to } = this.#runAt(at, end);
      if (state === BASE) {
        const below = await this.#base.places.locate(at, to - at, options);
        places.push(...below.map((place) => fromBelow(place, OWN_FILES)));
        const last = places.at(-1) as Place;
        at = last.offset + last.length;
      } else {
        const own = { offset: at, length: to - at, depth: 0 };
        if (state === ZEROED) places.push({ ...own, state: 'zeros', file: null, place: 0 });
        else places.push({ ...own, state: 'data', file: MEMORY, place: at });
        at = to;
      }
    }
    return places;
  }

  async #changes(offset: number, length: number): Promise<Change[]> {
    await nextTurn();
    const end = offset + length;
    const changes: Change[] = [];
    for (let at = offset; at < end; ) {
      const { state, to } = this.#runAt(at, end);
      const kind = state === BASE ? null : state === ZEROED ? 'zeros' : 'data';
      const last = changes.at(-1);
      const isNext = last !== undefined && last.offset + last.length === at && last.kind === kind;
      if (!isNext && kind !== null && changes.length === TOLD) break;
      if (isNext) changes[changes.length - 1] = { ...last, length: to - last.offset };
      else if (kind !== null) changes.push({ offset: at, length: to - at, kind });
      at = to;
    }
    return changes;
  }

  /** The run of a state that begins at a byte. It ends at `end` at the latest, and may end before the state changes. */
  #runAt(at: number, end: number): { state: number; to: number } {
    const { state, first, count } = this.#states.runAt(Math.floor(at / GRANULE_BYTES), Math.ceil(end / GRANULE_BYTES));
    return { state, to: Math.min(end, (first + count) * GRANULE_BYTES) };
  }
}

/** The granules that a range touches. @param length above 0 */
function granulesOf(offset: number, length: number): Granules {
  const first = Math.floor(offset / GRANULE_BYTES);
  return { first, count: Math.ceil((offset + length) / GRANULE_BYTES) - first };
}

function runsOf(states: Uint8Array, first: number): Run[] {
  const runs: Run[] = [];
  for (let at = 0; at < states.length; ) {
    const state = states[at] as number;
    let end = at + 1;
    while (end < states.length && states[end] === state) end++;
    runs.push({ state, first: first + at, count: end - at });
    at = end;
  }
  return runs;
}
