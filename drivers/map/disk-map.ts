/**
 * The map of a disk, as its driver uses it. The driver tells what it knows, and withdraws granules before it changes
 * where they are. Threads serve what the map knows; they hand every other request to the driver.
 *
 *      request for an unknown granule ──► driver.read or driver.write ──► `set`         next time a thread serves it
 *      a granule moves, is zeroed or freed:   `withdraw` ──► change the disk ──► `restore`, `set`
 *
 * A place in a file must not be used for anything else, punched or freed before `withdraw` has resolved. If the old place
 * stays as it is, as the base below a copy does, `set` alone is enough: a read that began earlier may see the old bytes.
 */
import type { Window } from '../segments/segment.js';
import {
  ASK,
  createTable,
  DATA,
  type GranuleEntry,
  granulesOf,
  MapLook,
  MapStore,
  type MapTable,
  MOST_FILES,
  SLICE_GRANULES,
  slicesOf,
  type ZEROS,
} from './table.js';

const SLOT_BYTES = SLICE_GRANULES * 8;
/** the most memory of a table besides its directory, if the driver says nothing */
const DEFAULT_BYTES = 16 << 20;
/** how many slots are emptied at one time when none is free: each time waits for the threads */
const EVICTED_PART = 8;
const UNKNOWN = { state: ASK, file: 0, place: 0 } as const satisfies GranuleEntry;

/** A file that entries refer to. Entries limit what is used of it, so it has no size. */
export type MapFile = Omit<Window, 'start' | 'size'>;

/** What is known of all granules of a slice. */
export type SliceState =
  | { readonly state: typeof ASK | typeof ZEROS }
  /** each byte is at the same place in the file, for reading */
  | { readonly state: typeof DATA; readonly file: number };

export interface DiskMapOptions {
  readonly granuleBytes: number;
  readonly sizeBytes: number;
  /** at most MOST_FILES; entries name them by their index */
  readonly files: readonly MapFile[];
  /** what is true now of all granules of a slice (SLICE_GRANULES); ASK if they differ; default: ASK */
  readonly sliceState?: (slice: number) => SliceState;
  /** the most memory for entries; default 16 MiB */
  readonly mostBytes?: number;
}

/** What serves a map with threads. */
export interface MapServer {
  /** Resolves when no thread can still use an entry that was stored before the call. */
  quiesce(): Promise<void>;
}

export class DiskMap {
  readonly files: readonly MapFile[];
  readonly table: MapTable;
  readonly #look: MapLook;
  readonly #store: MapStore;
  readonly #sliceState: (slice: number) => SliceState;
  readonly #free: number[];
  /** the slices that have a slot, with their slots, in the order in which they got it */
  readonly #slots = new Map<number, number>();
  /** withdrawn granules, with the number of changes under way: `set` does not store them */
  readonly #withdrawn = new Map<number, number>();
  readonly #servers = new Set<MapServer>();
  #evicting: Promise<void> | null = null;

  constructor({ granuleBytes, sizeBytes, files, sliceState, mostBytes = DEFAULT_BYTES }: DiskMapOptions) {
    if (granuleBytes < 512 || (granuleBytes & (granuleBytes - 1)) !== 0) {
      throw new RangeError(`a granule has ${granuleBytes} bytes: it must be a power of two, at least 512`);
    }
    if (files.length > MOST_FILES) throw new RangeError(`${files.length} files: a map has at most ${MOST_FILES}`);
    this.files = files;
    const whole = { granuleBytes, sizeBytes, slots: 0 };
    const slots = Math.max(1, Math.min(slicesOf(whole), Math.floor(mostBytes / SLOT_BYTES)));
    this.table = createTable({ ...whole, slots });
    this.#look = new MapLook(this.table);
    this.#store = new MapStore(this.table);
    this.#free = Array.from({ length: slots }, (_, i) => slots - 1 - i);
    this.#sliceState = sliceState ?? (() => ({ state: ASK }));
    if (sliceState === undefined) return;
    for (let slice = 0; slice < slicesOf(whole); slice++) this.#setSlice(slice);
  }

  get granuleBytes(): number {
    return this.table.shape.granuleBytes;
  }

  /** The number of granules; the last one may be cut. */
  get granules(): number {
    return granulesOf(this.table.shape);
  }

  /** Threads serve the map. @returns a function that says that they do not any more */
  servedBy(server: MapServer): () => void {
    this.#servers.add(server);
    return () => void this.#servers.delete(server);
  }

  /** What the map knows of a granule. */
  entry(granule: number): GranuleEntry {
    const state = this.#look.run(granule * this.granuleBytes, 1);
    return { state, file: this.#look.file, place: this.#look.place };
  }

  /** Tells where a granule is. Without memory for the entry, or while it is withdrawn, the granule is ASK. */
  set(granule: number, entry: GranuleEntry): void {
    if (this.#withdrawn.has(granule)) return;
    this.#set(granule, entry);
  }

  #set(granule: number, entry: GranuleEntry): void {
    const slice = Math.floor(granule / SLICE_GRANULES);
    const slot = this.#slots.get(slice) ?? this.#takeSlot(slice);
    if (slot === null) this.#store.setSlice(slice, ASK);
    else this.#store.setEntry(slot, granule % SLICE_GRANULES, entry);
  }

  /**
   * Makes granules ASK and waits until no thread uses what was known of them. Until `restore` is called, `set` is
   * ignored for them, so a read on the event loop that has just looked cannot bring the old entry back.
   * @param count granules from `first`
   */
  async withdraw(first: number, count: number): Promise<void> {
    for (let granule = first; granule < first + count; granule++) {
      this.#withdrawn.set(granule, (this.#withdrawn.get(granule) ?? 0) + 1);
      if (this.entry(granule).state !== ASK) this.#set(granule, UNKNOWN);
    }
    // also if all were ASK: their slots may just have been emptied, and threads still use the entries
    await this.#quiesce();
  }

  /** Ends a `withdraw` of the same granules: `set` stores them again. */
  restore(first: number, count: number): void {
    for (let granule = first; granule < first + count; granule++) {
      const left = (this.#withdrawn.get(granule) ?? 1) - 1;
      if (left === 0) this.#withdrawn.delete(granule);
      else this.#withdrawn.set(granule, left);
    }
  }

  /** Gives a slot to a slice, with what is known of all its granules. @returns null if none is free now */
  #takeSlot(slice: number): number | null {
    const slot = this.#free.pop();
    if (slot === undefined) {
      this.#evict();
      return null;
    }
    const told = this.#known(slice);
    const file = told.state === DATA ? told.file : 0;
    for (let index = 0; index < SLICE_GRANULES; index++) {
      const place = (slice * SLICE_GRANULES + index) * this.granuleBytes;
      this.#store.setEntry(slot, index, { state: told.state, file, place });
    }
    this.#slots.set(slice, slot);
    this.#store.setSlot(slice, slot);
    return slot;
  }

  /** Empties the slots that are oldest. They are free when no thread uses them any more. */
  #evict(): void {
    if (this.#evicting !== null) return;
    const count = Math.max(1, Math.floor(this.table.shape.slots / EVICTED_PART));
    const oldest = [...this.#slots].slice(0, count);
    for (const [slice] of oldest) {
      this.#slots.delete(slice);
      this.#setSlice(slice);
    }
    this.#evicting = this.#quiesce().then(() => {
      this.#free.push(...oldest.map(([, slot]) => slot));
      this.#evicting = null;
    });
  }

  #known(slice: number): SliceState {
    const isChanging = [...this.#withdrawn.keys()].some((granule) => Math.floor(granule / SLICE_GRANULES) === slice);
    return isChanging ? UNKNOWN : this.#sliceState(slice);
  }

  #setSlice(slice: number): void {
    const told = this.#known(slice);
    this.#store.setSlice(slice, told.state, told.state === DATA ? told.file : 0);
  }

  async #quiesce(): Promise<void> {
    await Promise.all([...this.#servers].map((server) => server.quiesce()));
  }
}
