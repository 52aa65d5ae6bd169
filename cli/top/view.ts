/** What `fusetap top` shows, as lines of text: made from the rates, and from what the keys have chosen. */
import { escapeControls } from '../../drivers/quote.js';
import type { BusRates, VbdRates } from '../../mount/client/watching/rates.js';
import { BUS_COLUMNS, sortVbds, VBD_COLUMNS } from '../watching/rows.js';
import { shortBytes, shortCount } from '../watching/words.js';
import { cutEnd, type FittedLine, fitTable, wrap } from './fit.js';

const BOLD = '\x1b[1m';
const REVERSE = '\x1b[7m';
const PLAIN = '\x1b[0m';

/** What the keys have chosen. */
export interface Choices {
  /** a column of the vbds; empty: all requests together */
  readonly sort: string;
  readonly isReversed: boolean;
  readonly isPaused: boolean;
  readonly isHelp: boolean;
  /** the first row that is shown */
  readonly top: number;
}

export const FIRST_CHOICES: Choices = { sort: '', isReversed: false, isPaused: false, isHelp: false, top: 0 };

/** The sort orders, in the order of their keys. */
const SORTS = ['', ...VBD_COLUMNS.map(({ key }) => key)];

/** The choices after a key; null: quit. */
export function afterKey(choices: Choices, key: string, page: number): Choices | null {
  if (key === 'q' || key === 'Q' || key === 'ctrl-c') return null;
  if (choices.isHelp) return { ...choices, isHelp: false };
  const move = (by: number): Choices => ({ ...choices, top: Math.max(0, choices.top + by) });
  const sortBy = (by: number): Choices => {
    const next = (SORTS.indexOf(choices.sort) + by + SORTS.length) % SORTS.length;
    return { ...choices, sort: SORTS[next] ?? '', top: 0 };
  };
  const acts: Readonly<Record<string, () => Choices>> = {
    right: () => sortBy(1),
    '>': () => sortBy(1),
    left: () => sortBy(-1),
    '<': () => sortBy(-1),
    r: () => ({ ...choices, isReversed: !choices.isReversed }),
    p: () => ({ ...choices, isPaused: !choices.isPaused }),
    space: () => ({ ...choices, isPaused: !choices.isPaused }),
    h: () => ({ ...choices, isHelp: true }),
    '?': () => ({ ...choices, isHelp: true }),
    down: () => move(1),
    up: () => move(-1),
    pagedown: () => move(page),
    pageup: () => move(-page),
    home: () => ({ ...choices, top: 0 }),
  };
  return acts[key]?.() ?? choices;
}

export interface Size {
  readonly columns: number;
  readonly rows: number;
}

/** What is shown at a moment. */
export interface Shown {
  readonly buses: readonly BusRates[];
  readonly at: Date;
  readonly intervalMs: number;
}

/** A line that has the width of the screen or less, and sequences of ours; any other line is text, which is cut. */
interface StyledLine {
  readonly styled: string;
}

type Line = string | StyledLine;

/** The lines of the screen: at most as many and as wide as it is. */
export function screenLines(shown: Shown, choices: Choices, size: Size): string[] {
  const lines = choices.isHelp ? helpLines(size.columns) : tableLines(shown, choices, size);
  return [headLine(shown, choices, size.columns), ...lines]
    .slice(0, size.rows)
    .map((line) => (typeof line === 'string' ? cutEnd(line, size.columns) : line.styled));
}

function headLine({ buses, at, intervalMs }: Shown, { isPaused, sort, isReversed }: Choices, width: number): string {
  const vbds = buses.flatMap((bus) => bus.vbds);
  const sum = (value: (vbd: VbdRates) => number): number => vbds.reduce((total, vbd) => total + value(vbd), 0);
  const time = at.toTimeString().slice(0, 8);
  const total = `${shortCount(sum((vbd) => vbd.perSecond))}/s ${shortBytes(sum((vbd) => vbd.bytesPerSecond))}/s`;
  const order = `by ${sort === '' ? 'requests' : sort}${isReversed ? ', reversed' : ''}`;
  const state = isPaused ? 'PAUSED' : `every ${intervalMs / 1000} s`;
  // what is left out first comes last here
  const parts = [state, 'h: help, q: quit', time, total, order];
  while (parts.length > 1 && parts.join('   ').length > width) parts.pop();
  return cutEnd(parts.join('   '), width);
}

function tableLines({ buses }: Shown, choices: Choices, { columns, rows }: Size): Line[] {
  if (buses.length === 0) return ['', 'no bus runs: fusetap attach or fusetap start starts one'];
  // the head, two lines of heads, two empty lines; vbds get at least half of the rest
  const mostBuses = Math.max(1, Math.floor((rows - 5) / 2));
  const urgent = [...buses].sort((a, b) => urgency(b) - urgency(a)).slice(0, mostBuses);
  const shownBuses = buses.filter((bus) => urgent.includes(bus));
  const busTable = fitTable(BUS_COLUMNS, shownBuses, columns);
  const hidden = buses.length - shownBuses.length;
  const more = hidden === 0 ? [] : [`and ${hidden} more buses`];
  const troubles = shownBuses.flatMap(({ trouble }) => (trouble === null ? [] : [escapeControls(trouble)]));
  const above = [
    '',
    ...busTable.map(({ text }, i) => (i === 0 ? { styled: bold(text) } : text)),
    ...more,
    ...troubles.slice(0, 2),
    '',
  ];
  return [...above, ...vbdLines(buses, choices, { columns, rows: rows - above.length - 1 })];
}

function vbdLines(buses: readonly BusRates[], { sort, isReversed, top }: Choices, { columns, rows }: Size): Line[] {
  const vbds = sortVbds(
    buses.flatMap((bus) => bus.vbds),
    sort,
    isReversed,
  );
  const room = Math.max(1, rows - 1);
  const first = Math.min(top, Math.max(0, vbds.length - room));
  // all rows take part in the widths, so that columns do not move while one scrolls
  const [heads, ...lines] = fitTable(VBD_COLUMNS, vbds, columns, { first, count: room });
  if (heads === undefined) return [];
  return [{ styled: markSorted(heads, sort) }, ...lines.map(({ text }) => text)];
}

/** Buses in trouble are always shown, then the busy ones. */
function urgency({ state, newRestarts, server }: BusRates): number {
  const isInTrouble = (state !== 'running' && state !== 'paused') || newRestarts > 0;
  return (isInTrouble ? 1e6 : 0) + (server?.cpuPercent ?? 0);
}

function markSorted({ text, places }: FittedLine, sort: string): string {
  const [start, length] = places.get(sort) ?? [0, 0];
  if (length === 0) return bold(text);
  const end = start + length;
  return `${bold(text.slice(0, start))}${REVERSE}${text.slice(start, end)}${PLAIN}${bold(text.slice(end))}`;
}

function bold(text: string): string {
  return text === '' ? '' : `${BOLD}${text}${PLAIN}`;
}

const KEYS = [
  ['<, >', 'sort by the column before or after; also the arrows left and right'],
  ['r', 'reverse the order'],
  ['p', 'pause the screen; also space'],
  ['arrows', 'up, down, page up, page down, home: scroll'],
  ['h', 'this help; any key ends it'],
  ['q', 'quit; also Ctrl-C'],
] as const;

const MEANINGS = [
  ['R/S', 'reads per second; W/S writes, F/S flushes, D/S discards'],
  ['RB/S', 'bytes read per second; WB/S written'],
  ['P50', 'half of the requests took at most this long in the server; P99: 99 of 100'],
  ['QUEUE', 'requests in progress, on average; if none ended: now'],
  ['CPU', 'of the server of the bus: 100% is one processor'],
  ['MEMORY', 'of the server: its part of what it shares with others'],
  ['RESTARTS', 'how often the server was replaced; (+1): in this interval'],
  ['WAITING', 'requests that the kernel has for the bus, not answered yet'],
] as const;

function helpLines(width: number): string[] {
  const lines = (rows: readonly (readonly [string, string])[]): string[] =>
    rows.flatMap(([term, meaning]) => wrap(`${term.padEnd(8)} ${meaning}`, width, 9));
  return ['', ...lines(KEYS), '', ...lines(MEANINGS)];
}
