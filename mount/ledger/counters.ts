/**
 * Counters of requests: number, bytes, failures, latency. The threads that serve requests count; the keeper reads.
 *
 * The counters are in a memfd of the keeper, so they outlive servers. Each vbd has a page for each thread (and one for
 * the main thread), so that threads do not wait for each other; the reader adds the pages up. The memfd is sparse:
 * unused pages take no memory.
 *
 *      page     4 kinds of 128 float64: requests, bytes, errors, longest (µs), then the histogram
 *      histogram, 4 buckets per octave: 0, ¼, ½, ¾, 1, 1¼, 1½, 1¾, 2, 2½, 3, 3½, 4 … µs
 */
import { fstatSync, ftruncateSync, readSync } from 'node:fs';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  fallocate,
  lseek,
  mapShared,
  memfdCreate,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../system/libc.js';
import { PAGE_BYTES } from '../../system/page.js';
import { MAX_FILES } from './ledger.js';

/** The kinds of requests that are counted, in the order of their numbers. `discard` frees or zeroes a range. */
export const KINDS = ['read', 'write', 'flush', 'discard'] as const;
export type Kind = (typeof KINDS)[number];

/** a request that is not counted */
export const NOT_COUNTED = -1;
export const READ = 0;
export const WRITE = 1;
export const FLUSH = 2;
export const DISCARD = 3;

const PAGE_WORDS = PAGE_BYTES / 8;
const KIND_WORDS = PAGE_WORDS / KINDS.length;
const BYTES = 1;
const ERRORS = 2;
const MAX_US = 3;
const HISTOGRAM = 4;
const BUCKETS = KIND_WORDS - HISTOGRAM;
/** pages per vbd: one for the main thread, then one for each thread */
const AREAS = 32;
export const MAIN_AREA = 0;
const FILE_BYTES = AREAS * PAGE_BYTES;

/** The page of counters for one vbd and one thread. */
export type Counters = Float64Array;

export const STATS_BYTES = MAX_FILES * FILE_BYTES;

/** Makes the memfd of the counters; the caller owns the descriptor. */
export function createStats(): number {
  const fd = memfdCreate('fusetap-stats');
  ftruncateSync(fd, STATS_BYTES);
  return fd;
}

/** Resets the counters of a vbd. */
export function resetStats(fd: number, ledgerIndex: number): void {
  fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ledgerIndex * FILE_BYTES, FILE_BYTES);
}

/**
 * The page of a vbd for a thread; `area` is MAIN_AREA or from areaOfThread. Never unmapped: call it once and keep it.
 */
export function mapCounters(fd: number, ledgerIndex: number, area: number): Counters {
  if (area >= AREAS) throw new RangeError(`no area ${area} for counters`);
  return new Float64Array(mapShared(fd, PAGE_BYTES, ledgerIndex * FILE_BYTES + area * PAGE_BYTES));
}

export function areaOfThread(thread: number): number {
  return thread + 1;
}

/** The pages of one thread, by vbd. */
export class CounterPages {
  readonly #fd: number;
  readonly #area: number;
  readonly #pages = new Map<number, Counters>();

  constructor(fd: number, area: number) {
    this.#fd = fd;
    this.#area = area;
  }

  /** The page of a vbd. A later vbd with the same index in the ledger gets the same page. */
  of(ledgerIndex: number): Counters {
    let page = this.#pages.get(ledgerIndex);
    if (page === undefined) {
      page = mapCounters(this.#fd, ledgerIndex, this.#area);
      this.#pages.set(ledgerIndex, page);
    }
    return page;
  }
}

/**
 * The clock: milliseconds since a fixed moment of this thread. A bound function, because a call of it is a third
 * faster.
 */
export const now: () => number = performance.now.bind(performance);

/**
 * Counts a request. Only the owner of the page may call it. Hot: no allocation, no system call.
 * @param result bytes, or −errno
 */
export function countRequest(page: Counters, kind: number, durationMs: number, result: number): void {
  const at = kind * KIND_WORDS;
  page[at] = (page[at] as number) + 1;
  if (result < 0) page[at + ERRORS] = (page[at + ERRORS] as number) + 1;
  else page[at + BYTES] = (page[at + BYTES] as number) + result;
  const us = durationMs * 1000;
  if (us > (page[at + MAX_US] as number)) page[at + MAX_US] = us;
  const bucket = at + HISTOGRAM + bucketOf(us);
  page[bucket] = (page[bucket] as number) + 1;
}

/** integer arithmetic, because a logarithm would take longer than the rest of countRequest */
function bucketOf(us: number): number {
  const quarters = us < 2 ** 28 ? (us * 4) | 0 : 2 ** 30;
  if (quarters < 4) return quarters;
  const octave = 31 - Math.clz32(quarters);
  return (octave - 1) * 4 + ((quarters >> (octave - 2)) & 3);
}

/** The lower bound of a bucket, in µs. */
export function bucketStartUs(bucket: number): number {
  if (bucket < 4) return bucket / 4;
  return 2 ** (Math.floor(bucket / 4) - 1) * (1 + (bucket % 4) / 4);
}

/** Reads a vbd's counters, by kind. */
export function readStats(fd: number, ledgerIndex: number): Record<Kind, KindStats> {
  const bytes = new Uint8Array(FILE_BYTES);
  readSync(fd, bytes, 0, FILE_BYTES, ledgerIndex * FILE_BYTES);
  const words = new Float64Array(bytes.buffer);
  const sum = words.subarray(0, PAGE_WORDS);
  for (let area = 1; area < AREAS; area++) addPage(sum, words.subarray(area * PAGE_WORDS, (area + 1) * PAGE_WORDS));
  const stats = (kind: number): KindStats => summarize(ofKind(sum, kind));
  return { read: stats(READ), write: stats(WRITE), flush: stats(FLUSH), discard: stats(DISCARD) };
}

/**
 * The counters of all places in the ledger, for somebody who asks again and again. Asking costs little time for a place
 * where nothing was counted since, and none for one where nothing was ever counted.
 */
export class CountersReader {
  readonly #fd: number;
  /** Mapped once: see mapCounters. */
  readonly #maps = new Map<number, Float64Array>();
  readonly #known = new Map<number, Known>();
  /** how much of the memfd had memory when its pages were last looked for */
  #blocks = -1;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** Resets the counters of a place, for a new vbd. Only one reader of the memfd may do it. */
  reset(ledgerIndex: number): void {
    resetStats(this.#fd, ledgerIndex);
    this.#known.delete(ledgerIndex);
    // as many pages as before may come back in other places
    this.#blocks = -1;
  }

  /** @returns the same objects as before for the kinds of which nothing was counted since */
  of(ledgerIndex: number): AllKinds {
    const known = this.#known.get(ledgerIndex);
    if (known === undefined) return NOTHING;
    const [first, ...others] = known.pages;
    SUM.set(first as Float64Array);
    for (const page of others) addPage(SUM, page);
    const changed = KINDS.filter((_, kind) => !isSame(ofKind(SUM, kind), ofKind(known.sum, kind)));
    if (changed.length === 0) return known.counters;
    known.sum.set(SUM);
    const renewed = changed.map((kind) => [kind, kindCounters(ofKind(SUM, KINDS.indexOf(kind)))]);
    known.counters = { ...known.counters, ...(Object.fromEntries(renewed) as Partial<AllKinds>) };
    return known.counters;
  }

  /** Looks for pages that were written for the first time. Call it before `of`. */
  findPages(): void {
    // a page that gets memory changes this number
    const { blocks } = fstatSync(this.#fd);
    if (blocks === this.#blocks) return;
    this.#blocks = blocks;
    const found = new Map<number, Float64Array[]>();
    for (const at of this.#written()) {
      const index = Math.floor(at / FILE_BYTES);
      const pages = found.get(index) ?? [];
      const start = (at % FILE_BYTES) / 8;
      pages.push(this.#map(index).subarray(start, start + PAGE_WORDS));
      found.set(index, pages);
    }
    for (const [index, pages] of found) {
      const known = this.#known.get(index);
      if (known === undefined) this.#known.set(index, { pages, sum: new Float64Array(PAGE_WORDS), counters: NOTHING });
      else known.pages = pages;
    }
  }

  /** The offsets of the pages with memory: time for as many as there are, holes are skipped. */
  *#written(): Generator<number> {
    let end = 0;
    for (;;) {
      const start = lseek(this.#fd, end, SEEK_DATA);
      // ENXIO: no data behind
      if (start < 0) return;
      end = lseek(this.#fd, start, SEEK_HOLE);
      if (end <= start) return;
      for (let at = start; at < end; at += PAGE_BYTES) yield at;
    }
  }

  #map(index: number): Float64Array {
    let map = this.#maps.get(index);
    if (map === undefined) {
      map = new Float64Array(mapShared(this.#fd, FILE_BYTES, index * FILE_BYTES));
      this.#maps.set(index, map);
    }
    return map;
  }
}

export type AllKinds = Readonly<Record<Kind, KindCounters>>;

/** What a reader knows of a place. */
interface Known {
  /** those with memory: reading another one would give it memory */
  pages: readonly Float64Array[];
  /** all pages, added up */
  readonly sum: Float64Array;
  counters: AllKinds;
}

const SUM = new Float64Array(PAGE_WORDS);
const none = (): KindCounters => ({ requests: 0, bytes: 0, errors: 0, maxUs: 0, histogram: [] });
const NOTHING: AllKinds = { read: none(), write: none(), flush: none(), discard: none() };

function isSame(one: Float64Array, other: Float64Array): boolean {
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false;
  return true;
}

const ofKind = (page: Float64Array, kind: number): Float64Array =>
  page.subarray(kind * KIND_WORDS, (kind + 1) * KIND_WORDS);

function addPage(sum: Float64Array, page: Float64Array): void {
  for (let kind = 0; kind < page.length; kind += KIND_WORDS) {
    const longest = Math.max(sum[kind + MAX_US] as number, page[kind + MAX_US] as number);
    // in one plain loop: somebody may ask this every second for hundreds of vbds
    for (let i = kind; i < kind + KIND_WORDS; i++) sum[i] = (sum[i] as number) + (page[i] as number);
    sum[kind + MAX_US] = longest;
  }
}

function kindCounters(words: Float64Array): KindCounters {
  const [requests = 0, bytes = 0, errors = 0, max = 0] = words;
  const histogram: HistogramBucket[] = [];
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    const count = words[HISTOGRAM + bucket] as number;
    if (count > 0) histogram.push([bucketStartUs(bucket), bucketStartUs(bucket + 1), count]);
  }
  return { requests, bytes, errors, maxUs: round(max), histogram };
}

function summarize(sum: Float64Array): KindStats {
  const [requests = 0, bytes = 0, errors = 0, max = 0] = sum;
  const histogram = sum.subarray(HISTOGRAM);
  const percentile = (share: number): number | null =>
    requests === 0 ? null : round(Math.min(max, findPercentile(histogram, share)));
  const latencyUs = { p50: percentile(0.5), p99: percentile(0.99), max: requests === 0 ? null : round(max) };
  return { requests, bytes, errors, latencyUs };
}

const round = (us: number): number => Math.round(us * 10) / 10;

/** The latency that `share` of all requests did not exceed. Assumes that the requests in a bucket are evenly spread. */
function findPercentile(histogram: Float64Array, share: number): number {
  // do not use the count of requests: threads may write while this is read, so the two can differ
  let left = histogram.reduce((sum, count) => sum + count, 0) * share;
  for (let bucket = 0; bucket < BUCKETS; bucket++) {
    const count = histogram[bucket] as number;
    if (count > 0 && left <= count) {
      const start = bucketStartUs(bucket);
      return start + (bucketStartUs(bucket + 1) - start) * (left / count);
    }
    left -= count;
  }
  return bucketStartUs(BUCKETS);
}

/** Statistics of the requests of one kind. Latencies are in µs, null if there was no request. */
export interface KindStats {
  requests: number;
  bytes: number;
  errors: number;
  latencyUs: { p50: number | null; p99: number | null; max: number | null };
}

/** How many requests took at least `fromUs` and less than `toUs` microseconds. */
export type HistogramBucket = [fromUs: number, toUs: number, requests: number];

/** The counters of the requests of one kind. */
export interface KindCounters {
  requests: number;
  bytes: number;
  errors: number;
  /** the longest request, in µs */
  maxUs: number;
  /** ascending; buckets without a request are left out */
  histogram: HistogramBucket[];
}
