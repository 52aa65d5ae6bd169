/** `fusetap stats --interval`: a group of lines for each interval, as iostat prints them; with --json a document a line. */
import type { BusPlace } from '../../mount/client/index.js';
import { KINDS } from '../../mount/client/stats.js';
import { BusWatch } from '../../mount/client/watching/bus-watch.js';
import type { BusRates, VbdRates } from '../../mount/client/watching/rates.js';
import { busAndVdev } from '../locate-vbd.js';
import { callersRuntimeDir, type SharedOptions } from '../options.js';
import { type Column, print, printNote, printTable, readerLeft } from '../output.js';
import { untilSignal } from '../run/until-signal.js';
import { eachInterval } from './each-interval.js';
import { notRunning } from './options.js';
import { queueOf } from './rows.js';
import { shortBytes, shortCount } from './words.js';

const COLUMNS: readonly Column[] = [
  { head: 'BUS' },
  { head: 'VDEV' },
  { head: 'KIND' },
  { head: 'REQ/S', align: 'right' },
  { head: 'BYTES/S', align: 'right' },
  { head: 'ERRORS', align: 'right' },
  { head: 'P50-US', align: 'right' },
  { head: 'P99-US', align: 'right' },
  { head: 'QUEUE', align: 'right' },
];

interface IntervalOptions extends SharedOptions {
  /** seconds */
  readonly interval: number;
  readonly count?: number;
}

/** Prints until a signal ends it, or the reader of stdout leaves. @throws FusetapError NOT_FOUND if the bus ends */
export async function printIntervals(word: string | undefined, options: IntervalOptions): Promise<void> {
  const { place, vdev } = await busAndVdev(word, options);
  const watch = new BusWatch(callersRuntimeDir(), { only: place, limitMs: Math.max(1_000, options.interval * 1_000) });
  try {
    await printEach(watch, { place, vdev, options });
  } finally {
    watch.close();
  }
}

interface Printed {
  readonly place: BusPlace;
  /** the only vbd to print */
  readonly vdev: string | undefined;
  readonly options: IntervalOptions;
}

async function printEach(watch: BusWatch, { place, vdev, options }: Printed): Promise<void> {
  let [rates] = await watch.look();
  if (rates === undefined) throw notRunning(place.name);
  const gone = readerLeft();
  let left = options.count ?? Number.POSITIVE_INFINITY;
  await untilSignal(async (signal) => {
    const over = AbortSignal.any([signal, gone]);
    for await (const _ of eachInterval(options.interval * 1_000, over)) {
      [rates] = await watch.look();
      if (rates === undefined) throw notRunning(place.name);
      printGroup(rates, vdev, options);
      left -= 1;
      if (left <= 0) return;
    }
    signal.throwIfAborted();
  });
}

function printGroup(rates: BusRates, vdev: string | undefined, { json, quiet }: SharedOptions): void {
  const vbds = rates.vbds.filter((vbd) => vdev === undefined || vbd.vdev === vdev);
  const time = new Date().toISOString();
  if (json) return print(JSON.stringify({ time, ...rates, vbds }));
  print(time);
  if (rates.trouble !== null && !quiet) printNote(rates.trouble);
  printTable(COLUMNS, vbds.flatMap(rows));
  print('');
}

function rows(vbd: VbdRates): string[][] {
  return KINDS.map((kind) => {
    const { perSecond, bytesPerSecond, newErrors, latencyUs } = vbd[kind];
    const us = [latencyUs.p50, latencyUs.p99].map((value) => (value === null ? '-' : value.toFixed(1)));
    // it is that of all kinds together
    const queue = kind === 'read' ? shortCount(queueOf(vbd)) : '';
    return [vbd.bus, vbd.vdev, kind, shortCount(perSecond), shortBytes(bytesPerSecond), `${newErrors}`, ...us, queue];
  });
}
