/**
 * The map of a disk, as its driver uses it. The driver tells what it knows, and withdraws granules before it changes
 * where they are. Threads serve what the map knows; they hand every other request to the driver.
 *
 *      request for an unknown granule ──► driver.read or driver.write ──► `set`         next time a thread serves it
 *      a granule moves, is zeroed or freed:   `withdraw` ──► change the disk ──► `restore`, `set`
 *      a granule moves, its old place stays:  change the disk ──► `set` or `replace`, without a wait
 *
 * A place in a file must not be used for anything else, punched or freed before `withdraw` has resolved, and threads may
 * write to a WRITABLE place until then. A place that is DATA and stays as it is, as that in the base below a copy, needs
 * no withdrawal: a read that began before the change was acknowledged may see the old bytes.
 */
import type { Window } from '../segments/segment.js';
import type { Granules } from './range-lock.js';
import {
  ASK,
  createTable,
  DATA,
  type GranuleEntry,
  type GranuleState,
  granulesOf,
  MapLook,
  MapStore,
  type MapTable,
  MOST_FILES,
  SLICE_GRANULES,
  slicesOf,
  WRITABLE,
} from './table.js';

const SLOT_BYTES = SLICE_GRANULES * 8;
/** the most memory of a table besides its directory, if the driver says nothing */
const DEFAULT_BYTES = 16 << 20;
/** how many slots are emptied at one time when none is free: each time waits for the threads */
const EVICTED_PART = 8;
const UNKNOWN: SliceState = { state: ASK };
const UNKNOWN_ENTRY: GranuleEntry = { state: ASK, file: 0, place: 0 };

/** A file that entries refer to. Entries limit what is used of it, so it has no size. */
export interface MapFile extends Omit<Window, 'start' | 'size'> {
  /** is added to the places of entries: they count from this byte of the file; may be negative; default: 0 */
  readonly delta?: number;
}

/**
 * What is true of all granules of a slice. With DATA and WRITABLE each byte is in that file, at the place that is its
 * offset in the disk.
 */
export interface SliceState {
  readonly state: GranuleState;
  /** default: 0 */
  readonly file?: number;
}

/** A range of the disk, in bytes. */
export interface Range {
  readonly offset: number;
  readonly length: number;
}

/** Tells the entry of a granule. */
export type TellEntry = (granule: number, entry: GranuleEntry) => void;

export interface DiskMapOptions {
  readonly granuleBytes: number;
  readonly sizeBytes: number;
  /** at most MOST_FILES; entries name them by their index */
  readonly files: readonly MapFile[];
  /**
   * what is true now of all granules of a slice (SLICE_GRANULES); null if they differ; default: ASK.
   * Is called at any time, and must not wait
   */
  readonly sliceState?: (slice: number) => SliceState | null;
  /** tells what is true now of the granules of a slice that differ; those that it does not tell are ASK */
  readonly sliceEntries?: (slice: number, tell: TellEntry) => void;
  /** sliceState is not called for each slice at the start: the driver calls `setSlices` */
  readonly startsUnknown?: boolean;
  /** the most memory for entries; default 16 MiB */
  readonly mostBytes?: number;
}

/** What serves a map with threads. */
export interface MapServer {
  /** Resolves when no thread can still use an entry that was stored before the call. */
  quiesce(): Promise<void>;
}

/** The entry of a granule that is ASK until no thread can still use the entry before. */
interface Late {
  readonly granule: number;
  /** may be replaced meanwhile */
  entry: GranuleEntry;
}

/** A range of granules that is changing. */
interface Changing {
  readonly first: number;
  readonly end: number;
}

/** The table, and what reads and writes it. */
interface Made {
  readonly table: MapTable;
  readonly look: MapLook;
  readonly store: MapStore;
}

/**
 * The table is made when somebody serves the map, or asks for the table: the layers of a chain have maps that nobody serves.
 * Without a table every granule is ASK, and what is told is ignored.
 */
export class DiskMap {
  readonly files: readonly MapFile[];
  readonly granuleBytes: number;
  readonly sizeBytes: number;
  /** The number of granules; the last one may be cut. */
  readonly granules: number;
  readonly #mostBytes: number;
  readonly #startsKnown: boolean;
  #made: Made | null = null;
  readonly #sliceState: (slice: number) => SliceState | null;
  readonly #sliceEntries: (slice: number, tell: TellEntry) => void;
  #free: number[] = [];
  /** the slices that have a slot, with their slots, in the order in which they got it */
  readonly #slots = new Map<number, number>();
  /** those of them that `learn` has not returned yet */
  readonly #fresh = new Set<number>();
  /** slots that were taken from their slices, and that threads may still use */
  #dropped: number[] = [];
  /** withdrawn ranges: `set` does not store their granules */
  readonly #changing = new Set<Changing>();
  readonly #servers = new Set<MapServer>();
  #evicting: Promise<void> | null = null;
  /** by granule; only granules of slices with a slot */
  readonly #late = new Map<number, Late>();
  /** those of them for which no wait has begun */
  #replaced: Late[] = [];
  #isSettling = false;

  constructor(options: DiskMapOptions) {
    const { granuleBytes, sizeBytes, files, sliceState, sliceEntries, mostBytes = DEFAULT_BYTES } = options;
    if (granuleBytes < 512 || (granuleBytes & (granuleBytes - 1)) !== 0) {
      throw new RangeError(`a granule has ${granuleBytes} bytes: it must be a power of two, at least 512`);
    }
    if (files.length > MOST_FILES) throw new RangeError(`${files.length} files: a map has at most ${MOST_FILES}`);
    this.files = files;
    this.granuleBytes = granuleBytes;
    this.sizeBytes = sizeBytes;
    this.granules = granulesOf({ granuleBytes, sizeBytes });
    this.#mostBytes = mostBytes;
    this.#startsKnown = sliceState !== undefined && !options.startsUnknown;
    this.#sliceState = sliceState ?? (() => UNKNOWN);
    this.#sliceEntries = sliceEntries ?? (() => {});
  }

  get table(): MapTable {
    return this.#make().table;
  }

  #make(): Made {
    if (this.#made !== null) return this.#made;
    const { granuleBytes, sizeBytes } = this;
    const slices = slicesOf({ granuleBytes, sizeBytes });
    const slots = Math.max(1, Math.min(slices, Math.floor(this.#mostBytes / SLOT_BYTES)));
    const table = createTable({ granuleBytes, sizeBytes, slots });
    this.#made = { table, look: new MapLook(table), store: new MapStore(table) };
    this.#free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
    for (let slice = 0; this.#startsKnown && slice < slices; slice++) this.#askSlice(slice);
    return this.#made;
  }

  get #store(): MapStore {
    return this.#make().store;
  }

  /** Threads serve the map. @returns a function that says that they do not any more */
  servedBy(server: MapServer): () => void {
    this.#make();
    this.#servers.add(server);
    return () => void this.#servers.delete(server);
  }

  /** What the map knows of a granule. */
  entry(granule: number): GranuleEntry {
    if (this.#made === null) return UNKNOWN_ENTRY;
    const { look } = this.#made;
    const state = look.run(granule * this.granuleBytes, 1);
    return { state, file: look.file, place: look.place };
  }

  /** The granules that lie wholly in a range; the last one of the disk may be cut. */
  wholeGranules(offset: number, length: number): Granules {
    const end = offset + length;
    const first = Math.ceil(offset / this.granuleBytes);
    const to = end >= this.sizeBytes ? this.granules : Math.floor(end / this.granuleBytes);
    return { first, count: Math.max(0, to - first) };
  }

  /** The bytes of a slice. */
  rangeOf(slice: number): Range {
    const sliceBytes = SLICE_GRANULES * this.granuleBytes;
    const offset = slice * sliceBytes;
    return { offset, length: Math.min(this.sizeBytes - offset, sliceBytes) };
  }

  /** Tells where a granule is. Without memory for the entry, or while it is withdrawn, the granule is ASK. */
  set(granule: number, entry: GranuleEntry): void {
    this.setRun(granule, 1, entry);
  }

  /**
   * Tells where granules are that follow one another: in a file, `place` is that of the first. It must be true now: a
   * caller that has waited since it looked must look again. Granules that were in another place are replaced.
   * @throws RangeError if threads may write to another place of a granule: see replace
   */
  setRun(first: number, count: number, entry: GranuleEntry): void {
    if (this.#made === null) return;
    const { state, file } = entry;
    for (const { slice, from, to } of this.#partsOf(first, first + count)) {
      const at = entry.place + (from - first) * this.granuleBytes;
      const isSamePlace = state < DATA || at === from * this.granuleBytes;
      if (isSamePlace && this.#isWhole(slice, from, to) && !this.#isChanging(from, to)) {
        this.#drop(slice);
        this.#store.setSlices(slice, 1, state, file);
        continue;
      }
      const slot = this.#slotOf(slice);
      if (slot === null) continue;
      for (let granule = from; granule < to; granule++) {
        if (this.#isChanging(granule, granule + 1)) continue;
        const place = at + (granule - from) * this.granuleBytes;
        this.#setEntry(slot, granule, { state, file, place });
      }
    }
  }

  /** Stores an entry at once if no thread can mix it with the entry before, else replaces that one. */
  #setEntry(slot: number, granule: number, entry: GranuleEntry): void {
    const before = this.entry(granule);
    // with the same second word, the file may change: a read that began earlier may see the old bytes
    const hasSameWord = entry.state >= DATA && before.place === entry.place;
    const isWrittenElsewhere = before.state === WRITABLE && before.file !== entry.file;
    const isSafe = before.state < DATA || (hasSameWord && !isWrittenElsewhere);
    if (isSafe && !this.#late.has(granule)) this.#store.setEntry(slot, granule % SLICE_GRANULES, entry);
    else this.replace(granule, 1, entry);
  }

  /**
   * Tells that granules are in another place now, and does not wait: they are ASK at once, and known again when no thread
   * can still use what was known before. If they are told, replaced or withdrawn meanwhile, that counts. For granules
   * whose old place stays as it is. For others, and if threads may write to the old place, `withdraw` them first.
   * @param count granules from `first`; in a file, `place` is that of the first
   * @throws RangeError if threads may write to the old place
   */
  replace(first: number, count: number, entry: GranuleEntry): void {
    if (this.#made === null) return;
    for (const { slice, from, to } of this.#partsOf(first, first + count)) {
      const slot = this.#slotOf(slice);
      if (slot === null) continue;
      for (let granule = from; granule < to; granule++) {
        if (this.#isChanging(granule, granule + 1)) continue;
        const place = entry.place + (granule - first) * this.granuleBytes;
        this.#replaceEntry(slot, granule, { ...entry, place });
      }
    }
  }

  #replaceEntry(slot: number, granule: number, entry: GranuleEntry): void {
    const waiting = this.#late.get(granule);
    if (waiting !== undefined) {
      // the wait is the same: no thread has seen the entry that did not come
      waiting.entry = entry;
      return;
    }
    const before = this.entry(granule);
    if (areSame(before, entry)) return;
    const index = granule % SLICE_GRANULES;
    if (this.#servers.size === 0) return this.#store.setEntry(slot, index, entry);
    if (before.state === WRITABLE && entry.state !== ASK) {
      throw new RangeError(`threads may write to granule ${granule}: withdraw it first`);
    }
    this.#store.setEntry(slot, index, UNKNOWN_ENTRY);
    const late = { granule, entry };
    this.#late.set(granule, late);
    this.#replaced.push(late);
    if (!this.#isSettling) void this.#settle();
  }

  /** Stores the entries of replaced granules. What is replaced during a wait has the next one in common. */
  async #settle(): Promise<void> {
    this.#isSettling = true;
    // the caller may replace more
    await Promise.resolve();
    while (this.#replaced.length > 0) {
      const settled = this.#replaced;
      this.#replaced = [];
      await this.#quiesce();
      for (const late of settled) this.#storeLate(late);
    }
    this.#isSettling = false;
  }

  #storeLate(late: Late): void {
    const { granule, entry } = late;
    if (this.#late.get(granule) !== late) return;
    this.#late.delete(granule);
    const slot = this.#slots.get(Math.floor(granule / SLICE_GRANULES)) as number;
    this.#store.setEntry(slot, granule % SLICE_GRANULES, entry);
  }

  /** Granules are told or withdrawn: what they were replaced with counts no more. */
  #forgetLate(from: number, to: number): void {
    for (const granule of this.#late.keys()) if (from <= granule && granule < to) this.#late.delete(granule);
  }

  /**
   * Tells what is true of all granules of many slices. For the start, before anything is set. Threads may serve requests
   * meanwhile, so tell each slice once.
   */
  setSlices(first: number, count: number, { state, file = 0 }: SliceState): void {
    if (count > 0 && this.#made !== null) this.#store.setSlices(first, count, state, file);
  }

  /**
   * Threads ask for these granules: asks the driver what it knows of slices of which the map knows nothing.
   * @returns those of their slices that got a slot after the last call: the driver may find out more about their granules
   */
  learn(first: number, count: number): number[] {
    const fresh: number[] = [];
    if (this.#servers.size === 0) return fresh;
    for (const { slice } of this.#partsOf(first, first + count)) {
      if (!this.#slots.has(slice) && this.#store.isUnknown(slice) && !this.#askSlice(slice)) this.#takeSlot(slice);
      if (this.#fresh.delete(slice)) fresh.push(slice);
    }
    return fresh;
  }

  /**
   * Makes granules ASK and waits until no thread uses what was known of them. Until `restore` is called, `set` is
   * ignored for them, so a read on the event loop that has just looked cannot bring the old entry back.
   * @param count granules from `first`
   */
  async withdraw(first: number, count: number): Promise<void> {
    await this.withdrawAll([{ first, count }]);
  }

  /** The same for several ranges, with one wait. Each range has a `restore` of its own. */
  async withdrawAll(ranges: readonly Granules[]): Promise<void> {
    for (const { first, count } of ranges) this.#withdraw(first, first + count);
    // also if all were ASK: their slots may just have been emptied, and threads still use the entries
    await this.#quiesce();
  }

  #withdraw(first: number, end: number): void {
    this.#changing.add({ first, end });
    this.#forgetLate(first, end);
    for (const { slice, from, to } of this.#made === null ? [] : this.#partsOf(first, end)) {
      if (this.#isWhole(slice, from, to)) {
        this.#drop(slice);
        this.#store.setSlices(slice, 1, ASK);
      } else {
        this.#forget(slice, from, to);
      }
    }
  }

  /** Makes a part of a slice ASK. */
  #forget(slice: number, from: number, to: number): void {
    if (this.#store.isUnknown(slice)) return;
    const slot = this.#slotOf(slice);
    if (slot === null) return;
    for (let granule = from; granule < to; granule++)
      this.#store.setEntry(slot, granule % SLICE_GRANULES, UNKNOWN_ENTRY);
  }

  /** Ends a `withdraw` of the same granules: `set` stores them again. */
  restore(first: number, count: number): void {
    for (const changing of this.#changing) {
      if (changing.first !== first || changing.end !== first + count) continue;
      this.#changing.delete(changing);
      return;
    }
  }

  /** The parts of a range, slice by slice. */
  *#partsOf(first: number, end: number): Generator<{ slice: number; from: number; to: number }> {
    for (let from = first; from < end; ) {
      const slice = Math.floor(from / SLICE_GRANULES);
      const to = Math.min(end, (slice + 1) * SLICE_GRANULES);
      yield { slice, from, to };
      from = to;
    }
  }

  #isWhole(slice: number, from: number, to: number): boolean {
    const first = slice * SLICE_GRANULES;
    return from === first && to === Math.min(first + SLICE_GRANULES, this.granules);
  }

  /** Whether any granule of a range is withdrawn. */
  #isChanging(from: number, to: number): boolean {
    if (this.#changing.size === 0) return false;
    for (const { first, end } of this.#changing) if (first < to && from < end) return true;
    return false;
  }

  /** The parts of a range that are withdrawn. */
  #changingIn(from: number, to: number): { from: number; to: number }[] {
    return [...this.#changing].flatMap(({ first, end }) =>
      first < to && from < end ? [{ from: Math.max(first, from), to: Math.min(end, to) }] : [],
    );
  }

  /** The slot of a slice. @returns null if none is free now: then all of the slice is ASK */
  #slotOf(slice: number): number | null {
    const slot = this.#slots.get(slice) ?? this.#takeSlot(slice);
    if (slot === null) this.#store.setSlices(slice, 1, ASK);
    return slot;
  }

  /** Gives a slot to a slice, with what is known of its granules. @returns null if none is free now */
  #takeSlot(slice: number): number | null {
    const slot = this.#free.pop();
    if (slot === undefined) {
      this.#evict();
      return null;
    }
    const first = slice * SLICE_GRANULES;
    const told = this.#sliceState(slice);
    const tell: TellEntry = (granule, entry) => this.#store.setEntry(slot, granule - first, entry);
    const { state, file = 0 } = told ?? UNKNOWN;
    this.#store.fillSlot(slot, { state, file, place: first * this.granuleBytes }, this.granuleBytes);
    if (told === null) this.#sliceEntries(slice, tell);
    for (const { from, to } of this.#changingIn(first, first + SLICE_GRANULES)) {
      for (let granule = from; granule < to; granule++) tell(granule, UNKNOWN_ENTRY);
    }
    this.#slots.set(slice, slot);
    this.#fresh.add(slice);
    this.#store.setSlot(slice, slot);
    return slot;
  }

  /** Takes the slot from a slice. The caller tells the table what is known of it now. */
  #drop(slice: number): void {
    const slot = this.#slots.get(slice);
    if (slot === undefined) return;
    this.#slots.delete(slice);
    this.#fresh.delete(slice);
    this.#dropped.push(slot);
    // the next slot of the slice is filled anew
    this.#forgetLate(slice * SLICE_GRANULES, (slice + 1) * SLICE_GRANULES);
  }

  /** Empties the slots that are oldest. They are free when no thread uses them any more. */
  #evict(): void {
    if (this.#evicting !== null) return;
    const count = Math.max(1, Math.floor(this.table.shape.slots / EVICTED_PART));
    for (const slice of [...this.#slots.keys()].slice(0, Math.max(0, count - this.#dropped.length))) {
      this.#drop(slice);
      this.#askSlice(slice);
    }
    this.#evicting = this.#quiesce().then(() => {
      this.#evicting = null;
    });
  }

  /** Tells the table what the driver knows of a whole slice. @returns false if its granules differ */
  #askSlice(slice: number): boolean {
    const first = slice * SLICE_GRANULES;
    const isChanging = this.#isChanging(first, first + SLICE_GRANULES);
    const told = isChanging ? null : this.#sliceState(slice);
    this.#store.setSlices(slice, 1, told?.state ?? ASK, told?.file ?? 0);
    return told !== null;
  }

  /** Waits until threads use nothing that was known before the call. Then the dropped slots are free. */
  async #quiesce(): Promise<void> {
    const dropped = this.#dropped;
    this.#dropped = [];
    await Promise.all([...this.#servers].map((server) => server.quiesce()));
    this.#free.push(...dropped);
  }
}

function areSame(a: GranuleEntry, b: GranuleEntry): boolean {
  return a.state === b.state && (a.state < DATA || (a.file === b.file && a.place === b.place));
}
