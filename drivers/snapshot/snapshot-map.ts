/**
 * The map of a snapshot: file 0 is the memory, where each granule has the place that is its offset; then the files of the
 * base. There are two kinds of bases:
 *
 *      segments   one file for each. Entries have the same places as in the memory, because the `delta` of the file shifts
 *                 them. So whole slices need no slot, and an entry of the base can become one of the memory without a wait
 *      others     such as qcow2: the base tells where its bytes are when a slice is used first (MapBelow)
 */
import type { Disk } from '../disk.js';
import type { Places } from '../driver.js';
import { MapBelow } from '../map/below.js';
import { DiskMap, type MapFile, type Range, type SliceState, type TellEntry } from '../map/disk-map.js';
import { fromBelow } from '../map/places.js';
import { ASK, DATA, MOST_FILES, SLICE_GRANULES, WRITABLE, ZEROS } from '../map/table.js';
import { lastAtOrBefore } from '../segments/joined-disk.js';
import { GRANULE_BYTES, type Layout } from './layout.js';
import { areSame, BASE, PRIVATE, type States, ZEROED } from './states.js';

/** the number of the memory among the files */
export const MEMORY = 0;
/** how many files come before those of the base */
export const OWN_FILES = 1;
const UNKNOWN: SliceState = { state: ASK };
const IN_MEMORY: SliceState = { state: WRITABLE, file: MEMORY };
const ALL_ZEROS: SliceState = { state: ZEROS };

export interface SnapshotMapOptions {
  readonly base: Disk;
  readonly layout: Layout;
  readonly states: States;
  readonly memoryFd: number;
  readonly mapBytes: number | undefined;
}

/** What a snapshot tells its map. */
export class SnapshotMap {
  readonly map: DiskMap;
  /** the memory and all files of the base; those that are too many for the map come last */
  readonly files: readonly MapFile[];
  readonly #layout: Layout;
  readonly #states: States;
  /** of the base; empty if it is of the other kind */
  readonly #segments: readonly { readonly offset: number; readonly end: number }[];
  /** null if the base is segments, or cannot tell */
  readonly #below: MapBelow | null;

  constructor({ base, layout, states, memoryFd, mapBytes }: SnapshotMapOptions) {
    this.#layout = layout;
    this.#states = states;
    const { segments = [], places } = base;
    this.#segments = segments
      .slice(0, MOST_FILES - OWN_FILES)
      .map(({ offset, size }) => ({ offset, end: offset + size }));
    const memory: MapFile = { fd: memoryFd, kind: 'memory', readOnly: false, durable: false };
    const ofBase = places.files.map((file): MapFile => ({ ...file, readOnly: true, durable: false }));
    this.files = [memory, ...ofBase];
    this.map = new DiskMap({
      granuleBytes: GRANULE_BYTES,
      sizeBytes: layout.sizeBytes,
      files: this.files.slice(0, MOST_FILES),
      startsUnknown: true,
      ...(mapBytes !== undefined && { mostBytes: mapBytes }),
      sliceState: (slice) => this.#stateOf(slice, states.ofSlice(slice)),
      sliceEntries: (slice, tell) => this.#tellEntries(slice, tell),
    });
    this.#below = segments.length === 0 && ofBase.length > 0 ? this.#mapBelow(places) : null;
  }

  #mapBelow(places: Places): MapBelow {
    return new MapBelow({
      map: this.map,
      locate: async (offset, length) => {
        return (await places.locate(offset, length)).map((place) => fromBelow(place, OWN_FILES));
      },
      takenFromBelow: ({ offset, length }) => this.#takenFromBelow(offset, offset + length),
    });
  }

  /** The granules of the base in a range. */
  #takenFromBelow(from: number, to: number): Range[] {
    const parts: Range[] = [];
    for (let at = from; at < to; ) {
      const { state, first, count } = this.#states.runAt(Math.floor(at / GRANULE_BYTES), Math.ceil(to / GRANULE_BYTES));
      const end = Math.min(to, (first + count) * GRANULE_BYTES);
      if (state === BASE) parts.push({ offset: at, length: end - at });
      at = end;
    }
    return parts;
  }

  /** A request on the event loop touches granules: the next one can be served by threads. */
  learn(first: number, count: number): void {
    (this.#below ?? this.map).learn(first, count);
  }

  /**
   * Tells all that is known of whole slices. What no request has changed is told at once, however large the disk is.
   * Threads serve requests meanwhile. So each slice is told once: it must never be that of the base for a moment, if some
   * of its bytes are in the memory.
   */
  load(): void {
    let told = 0;
    for (const { slice, states } of this.#states.notedGranules()) {
      this.#tellUnnoted(told, slice);
      this.map.setSlices(slice, 1, this.#stateOf(slice, states) ?? UNKNOWN);
      told = slice + 1;
    }
    this.#tellUnnoted(told, this.#layout.slices);
  }

  /** Tells slices whose granules have no states of their own: only the state of the slice counts. */
  #tellUnnoted(from: number, to: number): void {
    let told = from;
    for (const { first, bytes } of this.#states.notedSlices(from, to)) {
      this.#tellBase(told, first);
      for (let at = 0; at < bytes.length; ) {
        let end = at + 1;
        while (end < bytes.length && bytes[end] === bytes[at]) end++;
        if (bytes[at] === ZEROED) this.map.setSlices(first + at, end - at, ALL_ZEROS);
        else this.#tellBase(first + at, first + end);
        at = end;
      }
      told = first + bytes.length;
    }
    this.#tellBase(told, to);
  }

  /** Tells slices that are those of the base: a slice that lies in two segments stays unknown. */
  #tellBase(from: number, to: number): void {
    if (to <= from || this.#segments.length === 0) return;
    const { slices, sizeBytes } = this.#layout;
    const sliceBytes = SLICE_GRANULES * GRANULE_BYTES;
    for (let i = lastAtOrBefore(this.#segments, from * sliceBytes); i < this.#segments.length; i++) {
      const { offset, end } = this.#segments[i] as { offset: number; end: number };
      if (offset >= to * sliceBytes) return;
      const first = Math.max(from, Math.ceil(offset / sliceBytes));
      const last = Math.min(to, end === sizeBytes ? slices : Math.floor(end / sliceBytes));
      if (last > first) this.map.setSlices(first, last - first, { state: DATA, file: OWN_FILES + i });
    }
  }

  setPrivate(first: number, count: number): void {
    this.map.setRun(first, count, { state: WRITABLE, file: MEMORY, place: first * GRANULE_BYTES });
  }

  setZeros(first: number, count: number): void {
    this.map.setRun(first, count, { state: ZEROS, file: MEMORY, place: first * GRANULE_BYTES });
  }

  #stateOf(slice: number, states: Uint8Array): SliceState | null {
    if (!areSame(states)) return null;
    const first = states[0];
    if (first === PRIVATE) return IN_MEMORY;
    if (first === ZEROED) return ALL_ZEROS;
    if (this.#segments.length === 0) return this.#below === null ? UNKNOWN : null;
    const from = slice * SLICE_GRANULES * GRANULE_BYTES;
    const file = this.#fileOf(from, from + states.length * GRANULE_BYTES);
    return file === null ? null : { state: DATA, file };
  }

  #tellEntries(slice: number, tell: TellEntry): void {
    const first = slice * SLICE_GRANULES;
    for (const [i, state] of this.#states.ofSlice(slice).entries()) {
      const granule = first + i;
      const place = granule * GRANULE_BYTES;
      if (state === PRIVATE) tell(granule, { state: WRITABLE, file: MEMORY, place });
      if (state === ZEROED) tell(granule, { state: ZEROS, file: MEMORY, place });
      const file = state === BASE ? this.#fileOf(place, place + GRANULE_BYTES) : null;
      if (file !== null) tell(granule, { state: DATA, file, place });
    }
  }

  /** The file of the segment that has a whole range of the disk; null if none has. */
  #fileOf(from: number, to: number): number | null {
    if (this.#segments.length === 0) return null;
    const index = lastAtOrBefore(this.#segments, from);
    const end = (this.#segments[index] as { end: number }).end;
    return Math.min(to, this.#layout.sizeBytes) <= end ? OWN_FILES + index : null;
  }
}
