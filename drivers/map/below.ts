/**
 * Tells a map where the bytes are that a disk takes from the disk below it. That disk may have to read its tables to tell,
 * so it is asked when the first request comes for a slice.
 *
 *      request on the event loop ──► learn: the driver tells a slice ──► the disk below tells the rest of it
 */
import type { Place, Places } from '../driver.js';
import type { DiskMap, Range } from './disk-map.js';
import { ASK, DATA, type GranuleEntry, MOST_FILES, WRITABLE, ZEROS } from './table.js';

export interface BelowOptions {
  readonly map: DiskMap;
  /** Describes a range that is taken from below, with the files of the map. */
  readonly locate: Places['locate'];
  /** Reads what `takenFromBelow` needs to tell all of a range. Default: nothing. */
  read?(range: Range): Promise<unknown>;
  /** The parts of a range that the disk takes from below now, as far as that is known. Must not wait. */
  takenFromBelow(range: Range): readonly Range[];
}

export class MapBelow {
  readonly #map: DiskMap;
  readonly #locate: Places['locate'];
  readonly #read: (range: Range) => Promise<unknown>;
  readonly #takenFromBelow: (range: Range) => readonly Range[];
  /** slices that are being looked up */
  readonly #busy = new Set<number>();
  /** how often the disk below has changed */
  #changes = 0;

  constructor({ map, locate, read = async () => {}, takenFromBelow }: BelowOptions) {
    this.#map = map;
    this.#locate = locate;
    this.#read = read;
    this.#takenFromBelow = takenFromBelow;
  }

  /** A request on the event loop touches granules: the next one of their slices can be served by threads. */
  learn(first: number, count: number): void {
    for (const slice of this.#map.learn(first, count)) {
      if (this.#busy.has(slice)) continue;
      this.#busy.add(slice);
      void this.#tell(this.#map.rangeOf(slice))
        // the request that needs it gets the error
        .catch(() => {})
        .finally(() => this.#busy.delete(slice));
    }
  }

  /** The disk below has other places: what was looked up before does not count any more. */
  changed(): void {
    this.#changes += 1;
  }

  #unknownIn(range: Range): Range[] {
    return this.#takenFromBelow(range).filter(({ offset, length }) => {
      const { first, count } = this.#map.wholeGranules(offset, length);
      return count > 0 && this.#map.entry(first).state === ASK;
    });
  }

  async #tell(range: Range): Promise<void> {
    const changes = this.#changes;
    await this.#read(range);
    for (const { offset, length } of this.#unknownIn(range)) {
      const end = offset + length;
      for (let at = offset; at < end; ) {
        const places = await this.#locate(at, end - at);
        if (changes !== this.#changes) return await this.#tell(range);
        for (const place of places) {
          this.#tellPlace(place);
          at = place.offset + place.length;
        }
      }
    }
  }

  /** Tells a place for what is still taken from below: some of it may have been written meanwhile. */
  #tellPlace(place: Place): void {
    for (const { offset, length } of this.#takenFromBelow(place)) {
      const { first, count } = this.#map.wholeGranules(offset, length);
      const { granuleBytes } = this.#map;
      const entry = entryOf(place, first * granuleBytes);
      for (let i = 0; entry !== null && i < count; i++) {
        if (this.#map.entry(first + i).state !== ASK) continue;
        this.#map.set(first + i, { ...entry, place: entry.place + i * granuleBytes });
      }
    }
  }
}

export const ALL_ZEROS: GranuleEntry = { state: ZEROS, file: 0, place: 0 };

/** The entry of a granule that begins at the byte `at` of a place; null if threads cannot use it. */
export function entryOf({ offset, state, file, place }: Place, at: number, isWritable = false): GranuleEntry | null {
  if (state === 'zeros') return ALL_ZEROS;
  if (state === 'unknown' || file === null || file >= MOST_FILES) return null;
  return { state: isWritable ? WRITABLE : DATA, file, place: place + at - offset };
}
