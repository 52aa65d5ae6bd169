/**
 * The disks that threads serve, as the main thread describes them, and how a thread finds the place of a request:
 *
 *      one window       the request itself
 *      segments         the window in which it lies; a request that crosses an end goes to the main thread
 *      a map            the runs of files in which it lies; an unknown granule goes to the main thread
 */
import type { Window } from '../../../drivers/driver.js';
import { ASK, DATA, type GranuleState, MapLook, type MapTable, WRITABLE, ZEROS } from '../../../drivers/map/table.js';
import { lastAtOrBefore } from '../../../drivers/segments/joined-disk.js';
import { durably } from '../../../drivers/segments/window-sync.js';
import { NO_TURNS } from './write-turns.js';

/** A window with the facts that threads need. */
export interface ServedWindow {
  readonly window: Window;
  /** the same window, for writes that must be durable (O_DSYNC, O_SYNC) */
  readonly durably: Window;
  /** false if the file system has no RWF_NOWAIT: then reads block */
  readonly canReadNoWait: boolean;
  /** the address of its first byte in this process (mapped-windows.ts); 0: not mapped */
  readonly mappedAt: number;
  /** the number of its image if its writes take turns (write-turns.ts), else NO_TURNS */
  readonly turns: number;
  /** writes may fill holes, which takes memory of the ram limit (growth.ts) */
  readonly mayGrow: boolean;
}

/** A part of a mapped disk. */
export interface ServedMap {
  readonly table: MapTable;
  /** by the numbers in the table; the window of each starts at the `delta` of the file, which may be negative */
  readonly files: readonly ServedWindow[];
  /** the byte of the map that is byte 0 of the disk */
  readonly start: number;
  readonly size: number;
  readonly readOnly: boolean;
}

/** A disk for threads: windows one after the other, or a map. */
export interface ServedDisk {
  readonly ledgerIndex: number;
  /** see BusFile */
  readonly flushIndex: number;
  readonly segments: readonly { readonly offset: number; readonly served: ServedWindow }[];
  /** null: the disk is its segments */
  readonly map: ServedMap | null;
}

/** Nothing of the request is in a place that threads know: the main thread must serve it. */
export const ELSEWHERE = 0;
/** The request is in one window: see `window`, `at` and `length`. */
export const IN_ONE = 1;
/** The request is in several runs, of which `length` bytes are inside the disk: see `nextRun`. */
export const IN_RUNS = 2;
export type Finding = typeof ELSEWHERE | typeof IN_ONE | typeof IN_RUNS;

/** Finds the place of requests. Allocates nothing. */
export interface Places {
  readonly ledgerIndex: number;
  readonly flushIndex: number;
  /** the file of a map, where no metadata is written: a write that must be durable goes to the main thread */
  readonly isMap: boolean;
  /** of the request found last: its window, and its first byte and length there */
  readonly window: ServedWindow;
  readonly at: number;
  readonly length: number;
  find(offset: number, length: number, writes: boolean): Finding;
  /** The next run of a request that is IN_RUNS: sets `window`, `at` and `length`. */
  nextRun(offset: number, length: number): GranuleState;
  /** Every window, to flush them; null if the main thread must flush. */
  readonly all: readonly ServedWindow[] | null;
}

export function placesOf(disk: ServedDisk): Places {
  if (disk.map !== null) return new MapPlaces(disk, disk.map);
  const [first, second] = disk.segments;
  if (first !== undefined && second === undefined) return new OneWindow(disk, first.served);
  return new SegmentPlaces(disk);
}

/** A disk that is one window: the window cuts requests at its end. */
export class OneWindow implements Places {
  readonly isMap = false;
  readonly ledgerIndex: number;
  readonly flushIndex: number;
  readonly all: readonly ServedWindow[];
  at = 0;
  length = 0;

  constructor(
    { ledgerIndex, flushIndex }: Pick<ServedDisk, 'ledgerIndex' | 'flushIndex'>,
    readonly window: ServedWindow,
  ) {
    this.ledgerIndex = ledgerIndex;
    this.flushIndex = flushIndex;
    this.all = [window];
  }

  find(offset: number, length: number): Finding {
    this.at = offset;
    this.length = length;
    return IN_ONE;
  }

  nextRun(): GranuleState {
    return ASK;
  }
}

class SegmentPlaces implements Places {
  readonly isMap = false;
  readonly ledgerIndex: number;
  readonly flushIndex: number;
  readonly all: readonly ServedWindow[];
  readonly #segments: ServedDisk['segments'];
  window: ServedWindow;
  at = 0;
  length = 0;

  constructor({ ledgerIndex, flushIndex, segments }: ServedDisk) {
    this.ledgerIndex = ledgerIndex;
    this.flushIndex = flushIndex;
    this.#segments = segments;
    this.window = segments[0]?.served as ServedWindow;
    this.all = [...new Map(segments.map(({ served }) => [served.window.fd, served])).values()];
  }

  find(offset: number, length: number): Finding {
    // for bytes after the end: the last one
    const index = lastAtOrBefore(this.#segments, offset);
    const end = this.#segments[index + 1]?.offset;
    if (end !== undefined && offset + length > end) return ELSEWHERE;
    const segment = this.#segments[index] as ServedDisk['segments'][number];
    this.window = segment.served;
    this.at = offset - segment.offset;
    this.length = length;
    return IN_ONE;
  }

  nextRun(): GranuleState {
    return ASK;
  }
}

class MapPlaces implements Places {
  readonly isMap = true;
  readonly all = null;
  readonly ledgerIndex: number;
  readonly flushIndex: number;
  readonly #map: ServedMap;
  readonly #look: MapLook;
  /** stands for what is after the end, and for a disk that is read-only */
  readonly #nothing: ServedWindow;
  window: ServedWindow;
  at = 0;
  length = 0;

  constructor({ ledgerIndex, flushIndex }: ServedDisk, map: ServedMap) {
    this.ledgerIndex = ledgerIndex;
    this.flushIndex = flushIndex;
    this.#map = map;
    this.#look = new MapLook(map.table);
    this.#nothing = nothing(map.readOnly);
    this.window = this.#nothing;
  }

  find(offset: number, length: number, writes: boolean): Finding {
    const { start, size, readOnly } = this.#map;
    const inside = Math.min(length, size - offset);
    if (inside <= 0 || (writes && readOnly)) {
      this.window = this.#nothing;
      this.at = 0;
      this.length = length;
      return IN_ONE;
    }
    const state = this.#look.run(start + offset, inside);
    if (state === ASK) return ELSEWHERE;
    const isOne = this.#look.length === inside;
    if (writes && state !== WRITABLE) return ELSEWHERE;
    this.length = inside;
    if (state === ZEROS || !isOne) return IN_RUNS;
    return this.#takeFile() ? IN_ONE : ELSEWHERE;
  }

  nextRun(offset: number, length: number): GranuleState {
    const state = this.#look.run(this.#map.start + offset, length);
    this.length = this.#look.length;
    return state < DATA || this.#takeFile() ? state : ASK;
  }

  /** @returns false for a file that was added later than the thread was told */
  #takeFile(): boolean {
    const served = this.#map.files[this.#look.file];
    if (served === undefined) return false;
    this.window = served;
    this.at = this.#look.place;
    return true;
  }
}

function nothing(readOnly: boolean): ServedWindow {
  const window: Window = { fd: -1, start: 0, size: 0, kind: 'memory', readOnly, durable: false };
  const none = { canReadNoWait: false, mappedAt: 0, turns: NO_TURNS, mayGrow: false };
  return { window, durably: durably(window), ...none };
}
