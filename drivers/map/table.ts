/**
 * The map of a disk: where the bytes of each granule are now. It is a table in memory that the main thread writes and
 * the worker threads read without a lock, so threads can serve a disk whose bytes are spread over files.
 *
 *      directory   a word for each slice of 512 granules: ASK, ZEROS, the same place in file k (to read, or to write
 *                  too), or the number of a slot
 *      slots       512 entries each, a granule each
 *      entry       2 words:   state (2 bits)   file (8)   place, high part (22)   │   place, low part (32)
 *
 * The table is a cache: a granule that it does not know is ASK, and the main thread serves the request. The number of
 * slots limits its memory.
 *
 * Order of stores. An entry that becomes known, from ASK or ZEROS: first the second word, then the first. An entry that
 * changes from one place to another: ASK, then the main thread waits until no thread can still use the old entry
 * (DiskMap.withdraw and DiskMap.replace), and then the new entry. So a thread that loads a known first word loads the
 * second word that belongs to it. The words of the directory have no second word: they may change at any time.
 */

/** The main thread must serve the granule. */
export const ASK = 0;
/** The granule reads as zeros. */
export const ZEROS = 1;
/** The granule is in a file, and threads may read it. */
export const DATA = 2;
/** The granule is in a file, and threads may read it and write it in place, because no metadata changes. */
export const WRITABLE = 3;
export type GranuleState = typeof ASK | typeof ZEROS | typeof DATA | typeof WRITABLE;

export const SLICE_GRANULES = 512;
export const MOST_FILES = 256;

const FILE_SHIFT = 2;
const HIGH_SHIFT = 10;
/** the place in a file has 54 bits, of which a number holds 53 */
const LOW = 2 ** 32;
const ENTRY_WORDS = 2;

/** The words of the directory. A word from FIRST_SLOT on is a slot. */
const SLICE_ASK = 0;
const SLICE_ZEROS = 1;
const FIRST_READ = 2;
const FIRST_WRITABLE = FIRST_READ + MOST_FILES;
const FIRST_SLOT = FIRST_WRITABLE + MOST_FILES;

export interface MapShape {
  /** a power of two, at least 512 */
  readonly granuleBytes: number;
  /** of the disk; the last granule may be cut */
  readonly sizeBytes: number;
  readonly slots: number;
}

/** A table in a form that can be posted to threads. */
export interface MapTable {
  readonly shape: MapShape;
  readonly memory: SharedArrayBuffer;
}

export function granulesOf({ sizeBytes, granuleBytes }: Omit<MapShape, 'slots'>): number {
  return Math.ceil(sizeBytes / granuleBytes);
}

export function slicesOf(shape: Omit<MapShape, 'slots'>): number {
  return Math.ceil(granulesOf(shape) / SLICE_GRANULES);
}

/** Makes a table in which every granule is ASK. */
export function createTable(shape: MapShape): MapTable {
  const words = slicesOf(shape) + shape.slots * SLICE_GRANULES * ENTRY_WORDS;
  return { shape, memory: new SharedArrayBuffer(words * 4) };
}

/**
 * Finds runs of a range that lie in one place. For threads: it allocates nothing.
 *
 *     const state = look.run(offset, length);     // look.length bytes; look.file and look.place if they are in a file
 */
export class MapLook {
  readonly #words: Int32Array;
  readonly #slotsAt: number;
  readonly #granuleBytes: number;
  /** of the run found last: its bytes, at least 1 and at most the wanted length */
  length = 0;
  /** the number of its file, and its first byte there */
  file = 0;
  place = 0;

  constructor({ shape, memory }: MapTable) {
    this.#words = new Int32Array(memory);
    this.#slotsAt = slicesOf(shape);
    this.#granuleBytes = shape.granuleBytes;
  }

  /**
   * Finds the run that starts at `offset`. It ends where another state, file or place begins.
   * @param offset bytes from the start of the disk, inside the disk
   * @param length bytes wanted, above 0
   */
  run(offset: number, length: number): GranuleState {
    const bytes = this.#granuleBytes;
    const skip = offset % bytes;
    let granule = (offset - skip) / bytes;
    const state = this.#entry(granule);
    const { file } = this;
    const first = this.place;
    let found = bytes - skip;
    while (found < length) {
      granule += 1;
      if (this.#entry(granule) !== state) break;
      if (state >= DATA && (this.file !== file || this.place !== first + skip + found)) break;
      found += bytes;
    }
    this.length = Math.min(found, length);
    this.file = file;
    this.place = first + skip;
    return state;
  }

  /** The state of a granule; sets `file` and `place` if it is in a file. */
  #entry(granule: number): GranuleState {
    const index = granule % SLICE_GRANULES;
    const slice = (granule - index) / SLICE_GRANULES;
    const word = Atomics.load(this.#words, slice);
    if (word >= FIRST_SLOT) return this.#slotEntry(word - FIRST_SLOT, index);
    if (word < FIRST_READ) return word === SLICE_ZEROS ? ZEROS : ASK;
    this.place = granule * this.#granuleBytes;
    const isWritable = word >= FIRST_WRITABLE;
    this.file = word - (isWritable ? FIRST_WRITABLE : FIRST_READ);
    return isWritable ? WRITABLE : DATA;
  }

  #slotEntry(slot: number, index: number): GranuleState {
    const at = this.#slotsAt + (slot * SLICE_GRANULES + index) * ENTRY_WORDS;
    const word = Atomics.load(this.#words, at);
    const state = (word & 3) as GranuleState;
    if (state < DATA) return state;
    this.file = (word >>> FILE_SHIFT) & (MOST_FILES - 1);
    this.place = (word >>> HIGH_SHIFT) * LOW + ((this.#words[at + 1] as number) >>> 0);
    return state;
  }
}

/** Where a granule is, for the main thread. */
export interface GranuleEntry {
  readonly state: GranuleState;
  readonly file: number;
  /** its first byte in the file, before the `delta` of the file is added */
  readonly place: number;
}

/** Writes the table. For the main thread. */
export class MapStore {
  readonly #words: Int32Array;
  readonly #slotsAt: number;

  constructor({ shape, memory }: MapTable) {
    this.#words = new Int32Array(memory);
    this.#slotsAt = slicesOf(shape);
  }

  /** Makes slices ASK, zeros, or the same place in a file. */
  setSlices(first: number, count: number, state: GranuleState, file = 0): void {
    const word = sliceWord(state, file);
    // each Atomics.store is a fence: for a whole disk it would take ten times as long
    if (count > 1) this.#words.fill(word, first, first + count - 1);
    Atomics.store(this.#words, first + count - 1, word);
  }

  /** Gives a slot to a slice. The entries of the slot must be complete. */
  setSlot(slice: number, slot: number): void {
    Atomics.store(this.#words, slice, FIRST_SLOT + slot);
  }

  /** Whether nothing is known of a slice. */
  isUnknown(slice: number): boolean {
    return Atomics.load(this.#words, slice) === SLICE_ASK;
  }

  /** Sets all entries of a slot: places follow one another. */
  fillSlot(slot: number, { state, file, place }: GranuleEntry, granuleBytes: number): void {
    const at = this.#slotsAt + slot * SLICE_GRANULES * ENTRY_WORDS;
    if (state < DATA) {
      // the second words have no meaning then
      this.#words.fill(state, at, at + SLICE_GRANULES * ENTRY_WORDS);
      return;
    }
    for (let index = 0; index < SLICE_GRANULES; index++) {
      this.setEntry(slot, index, { state, file, place: place + index * granuleBytes });
    }
  }

  /** The place must be 0 or more. It is kept only with DATA and WRITABLE. */
  setEntry(slot: number, index: number, { state, file, place }: GranuleEntry): void {
    const at = this.#slotsAt + (slot * SLICE_GRANULES + index) * ENTRY_WORDS;
    const high = Math.floor(place / LOW);
    if (state >= DATA) this.#words[at + 1] = (place % LOW) | 0;
    Atomics.store(this.#words, at, state | (file << FILE_SHIFT) | (high << HIGH_SHIFT));
  }
}

function sliceWord(state: GranuleState, file: number): number {
  switch (state) {
    case DATA:
      return FIRST_READ + file;
    case WRITABLE:
      return FIRST_WRITABLE + file;
    default:
      return state === ZEROS ? SLICE_ZEROS : SLICE_ASK;
  }
}
