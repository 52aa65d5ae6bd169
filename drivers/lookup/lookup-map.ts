/**
 * The map of a disk whose parts are looked up: file 0 is the image or its data file, then come the files below the backing
 * file. So a chain of any depth is one table, and threads read it as they read one file.
 *
 *      read on the event loop ──► learn: the tables in memory tell their slice ──► the backing file tells the rest
 *
 * Threads write a granule in place if it is its own part (Part.isOwn), and nothing in a table changes. Encoded parts and
 * those in memory are never in the map.
 */
import { ALL_ZEROS, entryOf, MapBelow } from '../map/below.js';
import { DiskMap, type MapFile, type Range, type SliceState, type TellEntry } from '../map/disk-map.js';
import { ASK, DATA, type GranuleEntry, MOST_FILES, WRITABLE, ZEROS } from '../map/table.js';
import type { Part } from './part.js';
import type { Reader } from './reader.js';

/** granules in a row that a request tells: its neighbours are often wanted next */
const LEARNT_TOGETHER = 16;

export interface LookupMapOptions {
  /** of the disk */
  readonly size: number;
  /** a power of two that divides the parts, except that of the end of the disk */
  readonly granuleBytes: number;
  readonly files: readonly MapFile[];
  readonly reader: Reader<Part>;
  /** Whether threads may write what nobody else uses. */
  mayWrite(): boolean;
  /**
   * Whether a range is not being changed. An entry that is changed may not be in the image yet, so threads must not
   * write what it names: that would be lost if the process was killed.
   */
  isStable(offset: number, length: number): boolean;
}

export class LookupMap {
  readonly map: DiskMap;
  readonly #granuleBytes: number;
  readonly #reader: Reader<Part>;
  readonly #mayWrite: LookupMapOptions['mayWrite'];
  readonly #isStable: LookupMapOptions['isStable'];
  /** null without a backing file */
  readonly #below: MapBelow | null;

  constructor({ size, granuleBytes, files, reader, mayWrite, isStable }: LookupMapOptions) {
    this.#granuleBytes = granuleBytes;
    this.#reader = reader;
    this.#mayWrite = mayWrite;
    this.#isStable = isStable;
    this.map = new DiskMap({
      granuleBytes,
      sizeBytes: size,
      files: files.slice(0, MOST_FILES),
      startsUnknown: true,
      sliceState: (slice) => this.#sliceState(slice),
      sliceEntries: (slice, tell) => this.#tellSlice(slice, tell),
    });
    this.#below = reader.hasBacking ? this.#mapBelow() : null;
  }

  #mapBelow(): MapBelow {
    const { finder } = this.#reader;
    return new MapBelow({
      map: this.map,
      locate: (offset, length) => this.#reader.locateBelow(offset, length),
      // a slice may be of several tables
      read: ({ offset, length }) => finder.find(offset, length),
      takenFromBelow: ({ offset, length }) =>
        finder.peek(offset, length).filter((part) => part.kind === 'none' && !this.#reader.isEmpty(part.offset)),
    });
  }

  /** Tells what a request on the event loop has found. */
  learn(found: readonly Part[]): void {
    const [first] = found;
    const last = found.at(-1);
    if (first === undefined || last === undefined) return;
    const from = Math.floor(first.offset / this.#granuleBytes);
    const to = Math.ceil((last.offset + last.length) / this.#granuleBytes);
    (this.#below ?? this.map).learn(from, to - from);
    // a slice may be of several tables, some of which were read after the others had told theirs; look again, because
    // what the request has found may have moved meanwhile. Requests may be smaller than a granule
    const start = from - (from % LEARNT_TOGETHER);
    const end = Math.ceil(to / LEARNT_TOGETHER) * LEARNT_TOGETHER;
    const offset = start * this.#granuleBytes;
    const length = Math.min(this.map.sizeBytes, end * this.#granuleBytes) - offset;
    for (const part of this.#reader.finder.peek(offset, length)) this.#tellIfUnknown(part);
  }

  /**
   * Tells where the granules of a range are now: their entries are in the image, and the caller has locked the parts that
   * they belong to.
   */
  moved(offset: number, length: number): void {
    const from = offset - (offset % this.#granuleBytes);
    const to = Math.min(this.map.sizeBytes, Math.ceil((offset + length) / this.#granuleBytes) * this.#granuleBytes);
    const parts = this.#reader.finder.peek(from, to - from);
    // a table that is not in memory any more tells nothing: what the map has may be old
    if (lengthOf(parts) < to - from) this.#set({ offset: from, length: to - from }, UNKNOWN);
    for (const part of parts) {
      // a granule of two parts has no place
      if (part.offset % this.#granuleBytes !== 0) this.#setGranule(part.offset, UNKNOWN);
      this.#set(part, this.#entryOf(part, true) ?? UNKNOWN);
    }
  }

  #setGranule(offset: number, entry: GranuleEntry): void {
    this.map.setRun(Math.floor(offset / this.#granuleBytes), 1, entry);
  }

  #set({ offset, length }: { readonly offset: number; readonly length: number }, entry: GranuleEntry): void {
    const { first, count } = this.map.wholeGranules(offset, length);
    if (count > 0) this.map.setRun(first, count, entry);
  }

  /** Ranges were moved into the backing file: tells where they are now. Their granules must be withdrawn until then. */
  movedBelow(ranges: readonly Range[]): void {
    this.#below?.changed();
    for (const { offset, length } of ranges) this.moved(offset, length);
  }

  /** Nothing is known of the disk any more. */
  forgetAll(): void {
    void this.forget(0, this.map.sizeBytes);
  }

  /** Nothing is known of a range any more, because a change of its entries has failed. */
  async forget(offset: number, length: number): Promise<void> {
    const { first, count } = this.map.wholeGranules(offset, length);
    if (count === 0) return;
    await this.map.withdraw(first, count);
    this.map.restore(first, count);
  }

  #tellIfUnknown(part: Part): void {
    const { first, count } = this.map.wholeGranules(part.offset, part.length);
    for (let granule = first; granule < first + count; granule++) {
      if (this.map.entry(granule).state !== ASK) continue;
      const entry = this.#entryOf(part, this.#isStable(granule * this.#granuleBytes, this.#granuleBytes));
      if (entry === null) return;
      this.map.set(granule, { ...entry, place: entry.place + (granule - first) * this.#granuleBytes });
    }
  }

  /** The entry of the first whole granule of a part; null if threads cannot use it, or the backing file must tell. */
  #entryOf(part: Part, isStable: boolean): GranuleEntry | null {
    if (part.kind === 'encoded' || part.kind === 'memory') return null;
    if (part.kind === 'none') return this.#reader.isEmpty(part.offset) ? ALL_ZEROS : null;
    const first = Math.ceil(part.offset / this.#granuleBytes) * this.#granuleBytes;
    const mayWrite = isStable && part.isOwn && this.#mayWrite();
    return entryOf(this.#reader.placeOf(part), first, mayWrite);
  }

  #sliceState(slice: number): SliceState | null {
    const { offset, length } = this.map.rangeOf(slice);
    const found = this.#reader.finder.peek(offset, length);
    if (found.length === 0) return { state: ASK };
    const zeros = found.filter((part) => this.#reader.isZeros(part));
    return lengthOf(zeros) === length ? { state: ZEROS } : null;
  }

  #tellSlice(slice: number, tell: TellEntry): void {
    const { offset, length } = this.map.rangeOf(slice);
    for (const part of this.#reader.finder.peek(offset, length)) {
      const { first, count } = this.map.wholeGranules(part.offset, part.length);
      const entry = this.#entryOf(part, true);
      const isStable = this.#isStable(part.offset, part.length);
      for (let i = 0; entry !== null && i < count; i++) {
        const isFree = isStable || this.#isStable((first + i) * this.#granuleBytes, this.#granuleBytes);
        const state = entry.state === WRITABLE && !isFree ? DATA : entry.state;
        tell(first + i, { ...entry, state, place: entry.place + i * this.#granuleBytes });
      }
    }
  }
}

function lengthOf(parts: readonly Part[]): number {
  return parts.reduce((sum, { length }) => sum + length, 0);
}

const UNKNOWN: GranuleEntry = { state: ASK, file: 0, place: 0 };
