/**
 * The map of a qcow2 disk: file 0 is the image or its data file, then come the files below the backing file. So a chain
 * of any depth is one table, and threads read it as they read one file.
 *
 *      read on the event loop ──► learn: the L2 tables in memory tell their slice ──► the backing file tells the rest
 *
 * Threads write a granule in place if its cluster has the refcount 1 and nothing in a table changes. Compressed clusters
 * are never in the map.
 */
import type { Place } from '../../driver.js';
import { DiskMap, type MapFile, type SliceState, type TellEntry } from '../../map/disk-map.js';
import { ASK, DATA, type GranuleEntry, SLICE_GRANULES, WRITABLE, ZEROS } from '../../map/table.js';
import type { Found } from './find.js';
import type { Reader } from './reader.js';

export interface Qcow2MapOptions {
  /** of the disk */
  readonly size: number;
  /** a cluster, or a subcluster with extended L2 */
  readonly granuleBytes: number;
  readonly files: readonly MapFile[];
  readonly reader: Reader;
  /** Whether threads may write what nobody else uses. */
  mayWrite(): boolean;
  /**
   * Whether a range is not being changed. An entry that is changed may not be in the image yet, so threads must not
   * write what it names: that would be lost if the process was killed.
   */
  isStable(offset: number, length: number): boolean;
}

export class Qcow2Map {
  readonly map: DiskMap;
  readonly #size: number;
  readonly #granuleBytes: number;
  readonly #reader: Reader;
  readonly #mayWrite: Qcow2MapOptions['mayWrite'];
  readonly #isStable: Qcow2MapOptions['isStable'];
  /** slices whose places in the backing file are being looked up */
  readonly #learning = new Set<number>();
  /** how often places in the backing file have changed: what was looked up before does not count then */
  #movesBelow = 0;

  constructor({ size, granuleBytes, files, reader, mayWrite, isStable }: Qcow2MapOptions) {
    this.#size = size;
    this.#granuleBytes = granuleBytes;
    this.#reader = reader;
    this.#mayWrite = mayWrite;
    this.#isStable = isStable;
    this.map = new DiskMap({
      granuleBytes,
      sizeBytes: size,
      files,
      startsUnknown: true,
      sliceState: (slice) => this.#sliceState(slice),
      sliceEntries: (slice, tell) => this.#tellSlice(slice, tell),
    });
  }

  /** Tells what a request on the event loop has found. */
  learn(found: readonly Found[]): void {
    const [first] = found;
    const last = found.at(-1);
    if (first === undefined || last === undefined) return;
    const from = Math.floor(first.offset / this.#granuleBytes);
    const to = Math.ceil((last.offset + last.length) / this.#granuleBytes);
    for (const slice of this.map.learn(from, to - from)) this.#learnBelow(slice);
    // a slice may be of several tables, some of which were read after the others had told theirs; look again, because
    // what the request has found may have moved meanwhile
    const length = last.offset + last.length - first.offset;
    for (const part of this.#reader.finder.peek(first.offset, length)) this.#tellIfUnknown(part);
  }

  /** Tells where a range is now, whole granules of it: its entries are in the image. Old places stay as they are. */
  moved(offset: number, length: number): void {
    for (const part of this.#reader.finder.peek(offset, length)) {
      const { first, count } = this.#whole(part);
      if (count > 0) this.map.setRun(first, count, this.#entryOf(part, true) ?? UNKNOWN);
    }
  }

  /** Ranges were moved into the backing file: tells where they are now. Their granules must be withdrawn until then. */
  movedBelow(ranges: readonly { readonly offset: number; readonly length: number }[]): void {
    this.#movesBelow += 1;
    for (const { offset, length } of ranges) this.moved(offset, length);
  }

  /** Nothing is known of a range any more, because a change of its entries has failed. */
  async forget(offset: number, length: number): Promise<void> {
    const { first, count } = this.#whole({ offset, length });
    if (count <= 0) return;
    await this.map.withdraw(first, count);
    this.map.restore(first, count);
  }

  /** The granules of a range that begins and ends at granules. */
  granulesOf(offset: number, length: number): { first: number; count: number } {
    return this.#whole({ offset, length });
  }

  #tellIfUnknown(part: Found): void {
    const { first, count } = this.#whole(part);
    if (count <= 0 || this.map.entry(first).state !== ASK) return;
    const entry = this.#entryOf(part, this.#isStable(part.offset, part.length));
    if (entry !== null) this.map.setRun(first, count, entry);
  }

  /** The granules that are wholly in a part of the disk; the last one of the disk may be cut. */
  #whole({ offset, length }: { readonly offset: number; readonly length: number }): { first: number; count: number } {
    const end = offset + length;
    const first = Math.ceil(offset / this.#granuleBytes);
    const to = end >= this.#size ? this.map.granules : Math.floor(end / this.#granuleBytes);
    return { first, count: to - first };
  }

  /** The entry of the first whole granule of a part; null if threads cannot use it, or the backing file must tell. */
  #entryOf(part: Found, isStable: boolean): GranuleEntry | null {
    if (part.kind === 'compressed') return null;
    if (part.kind === 'none') return this.#reader.isEmpty(part.offset) ? ALL_ZEROS : null;
    return this.#entryAt(this.#reader.placeOf(part), isStable && part.entry.copied && this.#mayWrite());
  }

  #entryAt({ offset, state, file, place }: Place, isWritable: boolean): GranuleEntry | null {
    if (state === 'unknown') return null;
    if (state === 'zeros') return ALL_ZEROS;
    const skip = (this.#granuleBytes - (offset % this.#granuleBytes)) % this.#granuleBytes;
    return { state: isWritable ? WRITABLE : DATA, file, place: place + skip };
  }

  #rangeOf(slice: number): { offset: number; length: number } {
    const offset = slice * SLICE_GRANULES * this.#granuleBytes;
    return { offset, length: Math.min(this.#size - offset, SLICE_GRANULES * this.#granuleBytes) };
  }

  #sliceState(slice: number): SliceState | null {
    const { offset, length } = this.#rangeOf(slice);
    const found = this.#reader.finder.peek(offset, length);
    const [only, second] = found;
    if (only === undefined) return { state: ASK };
    const isAll = second === undefined && only.length === length;
    const isZeros = only.kind === 'zeros' || (only.kind === 'none' && this.#reader.isEmpty(offset));
    return isAll && isZeros ? { state: ZEROS } : null;
  }

  #tellSlice(slice: number, tell: TellEntry): void {
    const { offset, length } = this.#rangeOf(slice);
    for (const part of this.#reader.finder.peek(offset, length)) {
      const { first, count } = this.#whole(part);
      const entry = this.#entryOf(part, true);
      const isStable = this.#isStable(part.offset, part.length);
      for (let i = 0; entry !== null && i < count; i++) {
        const isFree = isStable || this.#isStable((first + i) * this.#granuleBytes, this.#granuleBytes);
        const state = entry.state === WRITABLE && !isFree ? DATA : entry.state;
        tell(first + i, { ...entry, state, place: entry.place + i * this.#granuleBytes });
      }
    }
  }

  /** Looks up where the bytes of a slice are in the backing file. */
  #learnBelow(slice: number): void {
    if (this.#learning.has(slice)) return;
    const { offset, length } = this.#rangeOf(slice);
    const parts = this.#reader.finder.peek(offset, length).filter((part) => this.#isUnknownBelow(part));
    if (parts.length === 0) return;
    this.#learning.add(slice);
    void this.#tellBelow(parts)
      // the request that needs it gets the error
      .catch(() => {})
      .finally(() => this.#learning.delete(slice));
  }

  #isUnknownBelow(part: Found): boolean {
    if (part.kind !== 'none' || this.#reader.isEmpty(part.offset)) return false;
    const { first, count } = this.#whole(part);
    return count > 0 && this.map.entry(first).state === ASK;
  }

  async #tellBelow(parts: readonly Found[]): Promise<void> {
    const moves = this.#movesBelow;
    for (const { offset, length } of parts) {
      const places = await this.#reader.locateBelow(offset, length);
      if (moves !== this.#movesBelow) return;
      for (const place of places) {
        const entry = this.#entryAt(place, false);
        if (entry !== null) this.#tellWhereNone(place, entry);
      }
    }
  }

  /** Tells a place below where the disk has no cluster of its own: some may have been written meanwhile. */
  #tellWhereNone(place: Place, entry: GranuleEntry): void {
    const whole = this.#whole(place);
    for (const { kind, offset, length } of this.#reader.finder.peek(place.offset, place.length)) {
      if (kind !== 'none') continue;
      const { first, count } = this.#whole({ offset, length });
      const skip = (first - whole.first) * this.#granuleBytes;
      for (let i = 0; i < count; i++) {
        if (this.map.entry(first + i).state !== ASK) continue;
        this.map.set(first + i, { ...entry, place: entry.place + skip + i * this.#granuleBytes });
      }
    }
  }
}

const UNKNOWN: GranuleEntry = { state: ASK, file: 0, place: 0 };
const ALL_ZEROS: GranuleEntry = { state: ZEROS, file: 0, place: 0 };
