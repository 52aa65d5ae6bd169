/**
 * The columns of rates: what they show, how rows are sorted by them, and which of them a narrow terminal leaves out.
 */
import type { BusRates, VbdRates } from '../../mount/client/watching/rates.js';
import { shortBytes, shortCount, shortPercent, shortTime } from './words.js';

/** A column of a table of `Row`s. */
export interface RateColumn<Row> {
  /** the word of `--sort` and of JSON-like output */
  readonly key: string;
  readonly head: string;
  /** text; else figures, which are aligned to the right */
  readonly isText?: true;
  /** where there is no room for all columns, those with the highest number go first */
  readonly leaves: number;
  /** of a figure, so that columns do not move whenever it gets longer */
  readonly least?: number;
  /** takes the room that is left, and is cut to it */
  readonly isLast?: true;
  cell(row: Row): string;
  /** rows are sorted by this: figures with the largest first */
  order(row: Row): string | number;
}

/** how wide most figures are at most */
const USUAL_FIGURE = 5;

export const VBD_COLUMNS: readonly RateColumn<VbdRates>[] = [
  { key: 'bus', head: 'BUS', isText: true, leaves: 4, cell: ({ bus }) => bus, order: ({ bus }) => bus },
  { key: 'vdev', head: 'VDEV', isText: true, leaves: 0, cell: ({ vdev }) => vdev, order: ({ vdev }) => vdev },
  figure(['reads', 'R/S', 2], ({ read }) => read.perSecond, shortCount),
  figure(['writes', 'W/S', 2], ({ write }) => write.perSecond, shortCount),
  figure(['flushes', 'F/S', 6], ({ flush }) => flush.perSecond, shortCount),
  figure(['discards', 'D/S', 9], ({ discard }) => discard.perSecond, shortCount),
  figure(['readbytes', 'RB/S', 5], ({ read }) => read.bytesPerSecond, shortBytes),
  figure(['writebytes', 'WB/S', 5], ({ write }) => write.bytesPerSecond, shortBytes),
  figure(['p50', 'P50', 3], ({ latencyUs }) => latencyUs.p50, shortTime),
  figure(['p99', 'P99', 1], ({ latencyUs }) => latencyUs.p99, shortTime),
  figure(['queue', 'QUEUE', 4], queueOf, shortCount),
  {
    ...{ key: 'state', head: 'STATE', isText: true, leaves: 7 },
    cell: stateOf,
    order: (vbd) => (stateOf(vbd) === 'running' ? 1 : 0),
  },
  {
    ...{ key: 'image', head: 'IMAGE', isText: true, leaves: 8, isLast: true },
    cell: ({ image }) => image ?? '-',
    order: ({ image }) => image ?? '',
  },
];

export const BUS_COLUMNS: readonly RateColumn<BusRates>[] = [
  { key: 'bus', head: 'BUS', isText: true, leaves: 0, cell: ({ bus }) => bus, order: ({ bus }) => bus },
  { key: 'state', head: 'STATE', isText: true, leaves: 1, cell: ({ state }) => state, order: ({ state }) => state },
  {
    ...{ key: 'restarts', head: 'RESTARTS', leaves: 2 },
    cell: ({ restarts, newRestarts }) => `${restarts ?? '-'}${newRestarts > 0 ? ` (+${newRestarts})` : ''}`,
    order: ({ restarts }) => restarts ?? 0,
  },
  { key: 'cpu', head: 'CPU', leaves: 2, cell: ({ server }) => percentOf(server), order: (bus) => cpuOf(bus) },
  { key: 'memory', head: 'MEMORY', leaves: 3, cell: ({ server }) => memoryOf(server), order: () => 0 },
  { key: 'keepercpu', head: 'KEEPER-CPU', leaves: 5, cell: ({ keeper }) => percentOf(keeper), order: () => 0 },
  { key: 'keepermemory', head: 'KEEPER-MEMORY', leaves: 6, cell: ({ keeper }) => memoryOf(keeper), order: () => 0 },
  {
    ...{ key: 'waiting', head: 'WAITING', leaves: 4 },
    cell: ({ waiting }) => (waiting === null ? '-' : String(waiting)),
    order: ({ waiting }) => waiting ?? 0,
  },
  {
    ...{ key: 'vbds', head: 'VBDS', leaves: 4 },
    cell: ({ vbds }) => String(vbds.filter(({ disk }) => disk === null).length),
    order: () => 0,
  },
];

/** A column of figures; null is printed as `-`, and comes last. */
function figure<Value extends number | null>(
  [key, head, leaves]: readonly [key: string, head: string, leaves: number],
  value: (vbd: VbdRates) => Value,
  print: (value: Value) => string,
): RateColumn<VbdRates> {
  return { key, head, leaves, least: USUAL_FIGURE, cell: (vbd) => print(value(vbd)), order: (vbd) => value(vbd) ?? -1 };
}

/** If none ended in the interval, those in progress now: a disk that hangs must not look idle. */
export function queueOf({ perSecond, queue, inProgress }: VbdRates): number {
  return perSecond === 0 ? inProgress : queue;
}

/** One word: why a vbd does not work, else its state. */
function stateOf({ state, broken, imageState, passthrough }: VbdRates): string {
  if (broken !== null) return 'broken';
  if (imageState !== null) return imageState;
  return state === 'running' && passthrough ? 'passthrough' : state;
}

function cpuOf({ server }: BusRates): number {
  return server?.cpuPercent ?? 0;
}

function percentOf(process: BusRates['server']): string {
  return process === null ? '-' : shortPercent(process.cpuPercent);
}

function memoryOf(process: BusRates['server']): string {
  return process === null ? '-' : shortBytes(process.pssBytes ?? process.rssBytes);
}

/** Sorts by a column; rows that are equal there by bus and vdev. */
export function sortVbds(rows: readonly VbdRates[], key: string, isReversed: boolean): VbdRates[] {
  const column = VBD_COLUMNS.find((each) => each.key === key);
  const compare = (a: VbdRates, b: VbdRates): number => {
    const [x, y] = [orderOf(column, a), orderOf(column, b)];
    const order = typeof x === 'number' && typeof y === 'number' ? y - x : compareWords(String(x), String(y));
    return isReversed ? -order : order;
  };
  return [...rows].sort((a, b) => compare(a, b) || compareWords(a.bus, b.bus) || compareWords(a.vdev, b.vdev));
}

/** By default by all requests together. */
function orderOf(column: RateColumn<VbdRates> | undefined, vbd: VbdRates): string | number {
  return column === undefined ? vbd.perSecond : column.order(vbd);
}

/** Of vdevs, xvdb comes before xvdaa. */
function compareWords(a: string, b: string): number {
  const number = /^\d+$/;
  if (number.test(a) && number.test(b)) return Number(a) - Number(b);
  return a === b ? 0 : a < b ? -1 : 1;
}
