/**
 * Rates of a bus: the difference of what it had counted at two moments.
 */
import {
  type BusCounters,
  type BusState,
  type ImageState,
  KINDS,
  type Kind,
  type KindCounters,
  type ProcessCounters,
  type VbdCounters,
} from '../../control/interface.js';
import { add, type Histogram, percentile, subtract, totalUs } from './histogram.js';

/** Latencies of the requests that ended in an interval, in µs; null if none did. */
export interface Latency {
  p50: number | null;
  p99: number | null;
}

/** The requests of one kind: per second of an interval, and since the attach. */
export interface KindRates {
  perSecond: number;
  bytesPerSecond: number;
  latencyUs: Latency;
  /** that failed in the interval */
  newErrors: number;
  /** since the attach */
  requests: number;
  bytes: number;
  errors: number;
}

/** A vbd, or a partition of one, in an interval. */
export interface VbdRates extends Record<Kind, KindRates> {
  bus: string;
  vdev: string;
  /** the vdev of its disk if this is a partition */
  disk: string | null;
  driver: string;
  image: string | null;
  mode: VbdCounters['mode'];
  size: number;
  state: BusState;
  /** the kernel does its I/O without the server, so it is not counted */
  passthrough: boolean;
  broken: string | null;
  imageState: ImageState;
  opens: number;
  /** all kinds together */
  perSecond: number;
  bytesPerSecond: number;
  latencyUs: Latency;
  /** how many requests were in progress, on average over the interval; of those that ended in it */
  queue: number;
  /** how many are in progress now */
  inProgress: number;
  /** how long the oldest of them has been seen in progress, in ms, at least */
  oldestMs: number;
  flushErrors: number;
}

/** A process of a bus in an interval. */
export interface ProcessRates {
  pid: number;
  /** of one processor: 200 if it used two all the time */
  cpuPercent: number;
  rssBytes: number;
  pssBytes: number | null;
}

/** A bus in an interval. */
export interface BusRates {
  bus: string;
  /** its mount; null if not known */
  path: string | null;
  state: BusState | 'dead' | 'not-answering';
  /** why there are no rates; null if there are */
  trouble: string | null;
  /** how long the interval was; 0 if the bus was counted only once: all rates are 0 then */
  seconds: number;
  /** null if not known */
  restarts: number | null;
  /** in this interval */
  newRestarts: number;
  keeper: ProcessRates | null;
  server: ProcessRates | null;
  /** requests that the kernel has, sent to the server or not, that are not answered; null if not known */
  waiting: number | null;
  vbds: VbdRates[];
}

/**
 * @param earlier null if the bus was not counted before: all rates are 0 then. Counts of another run of the bus are
 *   ignored: all that the later run has counted happened since then.
 */
export function ratesBetween(earlier: BusCounters | null, later: BusCounters): BusRates {
  const seconds = earlier === null ? 0 : Math.max(0, Math.round(later.monotonicMs - earlier.monotonicMs) / 1000);
  const before = earlier?.run === later.run ? earlier : null;
  const { bus, path, state, restarts, waiting } = later;
  const known = new Map((before?.vbds ?? []).map((vbd) => [vbd.id, vbd]));
  return {
    ...{ bus, path, state, restarts, waiting, seconds },
    trouble: null,
    newRestarts: earlier === null ? 0 : Math.max(0, (restarts ?? 0) - (before?.restarts ?? 0)),
    keeper: processRates(before?.keeper ?? null, later.keeper, seconds),
    server: processRates(before?.server ?? null, later.server, seconds),
    vbds: later.vbds.map((vbd) => vbdRates({ bus, earlier: known.get(vbd.id) ?? null, later: vbd, seconds })),
  };
}

function processRates(
  earlier: ProcessCounters | null,
  later: ProcessCounters | null,
  seconds: number,
): ProcessRates | null {
  if (later === null) return null;
  const { pid, cpuMs, rssBytes, pssBytes } = later;
  // a process that was not there before has used all of its time since then
  const usedMs = cpuMs - (earlier?.pid === pid ? earlier.cpuMs : 0);
  return { pid, cpuPercent: tenth(perSecond(usedMs, seconds) / 10), rssBytes, pssBytes };
}

interface CountedTwice {
  readonly bus: string;
  readonly earlier: VbdCounters | null;
  readonly later: VbdCounters;
  readonly seconds: number;
}

/** The rates of vbds of which nothing has changed: made once, because most vbds of a large bus are idle. */
const idle = new WeakMap<VbdCounters, VbdRates>();

function vbdRates(counted: CountedTwice): VbdRates {
  const { earlier, later, seconds } = counted;
  if (earlier !== later || seconds === 0) return changedRates(counted);
  let rates = idle.get(later);
  if (rates === undefined) {
    rates = changedRates(counted);
    idle.set(later, rates);
  }
  return rates;
}

function changedRates({ bus, earlier, later, seconds }: CountedTwice): VbdRates {
  // counted once: nothing is known of an interval
  const ended = (kind: Kind): Histogram =>
    seconds === 0 ? [] : subtract(later[kind].histogram, earlier?.[kind].histogram ?? []);
  const histograms = { read: ended('read'), write: ended('write'), flush: ended('flush'), discard: ended('discard') };
  const rates = (kind: Kind): KindRates =>
    kindRates(earlier?.[kind] ?? null, later[kind], { histogram: histograms[kind], seconds });
  const kinds = { read: rates('read'), write: rates('write'), flush: rates('flush'), discard: rates('discard') };
  const all = add(Object.values(histograms));
  const sum = (key: 'perSecond' | 'bytesPerSecond'): number =>
    hundredth(KINDS.reduce((total, kind) => total + kinds[kind][key], 0));
  // each by its name: copying with `...` takes ten times as long, and there may be hundreds
  return {
    bus,
    vdev: later.vdev,
    disk: later.disk,
    driver: later.driver,
    image: later.image,
    mode: later.mode,
    size: later.size,
    state: later.state,
    passthrough: later.passthrough,
    broken: later.broken,
    imageState: later.imageState,
    opens: later.opens,
    inProgress: later.inProgress,
    oldestMs: later.oldestMs,
    flushErrors: later.flushErrors,
    perSecond: sum('perSecond'),
    bytesPerSecond: sum('bytesPerSecond'),
    latencyUs: latencyOf(all),
    // Little's law, as iostat does it
    queue: hundredth(perSecond(totalUs(all), seconds) / 1e6),
    read: kinds.read,
    write: kinds.write,
    flush: kinds.flush,
    discard: kinds.discard,
  };
}

interface Interval {
  /** of the requests that ended in it */
  readonly histogram: Histogram;
  readonly seconds: number;
}

function kindRates(earlier: KindCounters | null, later: KindCounters, { histogram, seconds }: Interval): KindRates {
  const { requests, bytes, errors } = later;
  return {
    perSecond: hundredth(perSecond(requests - (earlier?.requests ?? 0), seconds)),
    bytesPerSecond: hundredth(perSecond(bytes - (earlier?.bytes ?? 0), seconds)),
    latencyUs: latencyOf(histogram),
    newErrors: seconds === 0 ? 0 : Math.max(0, errors - (earlier?.errors ?? 0)),
    requests,
    bytes,
    errors,
  };
}

function latencyOf(histogram: Histogram): Latency {
  const [p50, p99] = [percentile(histogram, 0.5), percentile(histogram, 0.99)];
  return { p50: p50 === null ? null : tenth(p50), p99: p99 === null ? null : tenth(p99) };
}

function perSecond(count: number, seconds: number): number {
  return seconds === 0 ? 0 : Math.max(0, count) / seconds;
}

const tenth = (value: number): number => Math.round(value * 10) / 10;
const hundredth = (value: number): number => Math.round(value * 100) / 100;
