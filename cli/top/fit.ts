/**
 * Fits a table to the width of a terminal: leaves out columns, cuts names, never wraps. Widths are those of a terminal,
 * where a Chinese character takes two columns and an accent none; the package knows these tables of Unicode.
 */
import stringWidth from 'fast-string-truncated-width';
import { escapeControls, isPlain } from '../../drivers/quote.js';
import type { RateColumn } from '../watching/rows.js';

const GAP = 2;
/** below this a name says nothing */
const NARROWEST_NAME = 12;
/** a name that is longer is cut before it is measured */
const LONGEST_NAME = 1_000;

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' });

/** How many columns of the terminal a text takes. */
export function widthOf(text: string): number {
  // most cells are this, and a table may have thousands
  if (isPlain(text)) return text.length;
  return stringWidth(text).width;
}

/** The text, cut at its end to the width. */
export function cutEnd(text: string, width: number): string {
  if (widthOf(text) <= width) return text;
  let cut = '';
  let used = 1;
  for (const { segment } of graphemes.segment(text)) {
    used += widthOf(segment);
    if (used > width) break;
    cut += segment;
  }
  return width > 0 ? `${cut}…` : '';
}

/** The text, cut at its beginning: the end of a path tells more. */
export function cutStart(text: string, width: number): string {
  const short = text.slice(-LONGEST_NAME);
  if (short === text && widthOf(text) <= width) return text;
  const segments = Array.from(graphemes.segment(short), ({ segment }) => segment);
  let cut = '';
  let used = 1;
  for (const segment of segments.reverse()) {
    used += widthOf(segment);
    if (used > width) break;
    cut = segment + cut;
  }
  return width > 0 ? `…${cut}` : '';
}

/** A line of a table. */
export interface FittedLine {
  readonly text: string;
  /** where the cell of each shown column is, by its key, and how long */
  readonly places: ReadonlyMap<string, readonly [start: number, length: number]>;
}

/**
 * Lines that are at most `width` wide: the heads, then the rows.
 * @param place of the rows that get a line; the others count for the widths only
 */
export function fitTable<Row>(
  columns: readonly RateColumn<Row>[],
  rows: readonly Row[],
  width: number,
  place: { first: number; count: number } = { first: 0, count: rows.length },
): FittedLine[] {
  const cells = new Map(
    columns.map((column) => [column, [column.head, ...rows.map((row) => escapeControls(column.cell(row)))]]),
  );
  const widest = new Map(
    columns.map((column) => [column, Math.max(column.least ?? 0, widestOf(cells.get(column) ?? []))]),
  );
  const shown = leaveOut(columns, widest, width);
  const room = roomOfLast(shown, widest, width);
  const wanted = rows.slice(place.first, place.first + place.count).map((_, i) => place.first + 1 + i);
  return [0, ...wanted].map((line) => {
    let text = '';
    const places = new Map<string, readonly [number, number]>();
    for (const column of shown) {
      const cell = cells.get(column)?.[line] ?? '';
      const own = column.isLast ? room : Math.min(widest.get(column) ?? 0, width);
      const cut = line > 0 && column.isLast ? cutStart(cell, own) : cutEnd(cell, own);
      const padding = ' '.repeat(Math.max(0, own - widthOf(cut)));
      const start = text === '' ? 0 : widthOf(text) + GAP;
      const padded = column.isText ? cut + (column === shown.at(-1) ? '' : padding) : padding + cut;
      text += (text === '' ? '' : ' '.repeat(GAP)) + padded;
      places.set(column.key, [start, padded.length]);
    }
    return { text, places };
  });
}

function widestOf(cells: readonly string[]): number {
  return cells.reduce((widest, cell) => Math.max(widest, widthOf(cell.slice(-LONGEST_NAME))), 0);
}

/** Leaves out columns, those with the highest `leaves` first, until the others have room. */
function leaveOut<Row>(
  columns: readonly RateColumn<Row>[],
  widest: ReadonlyMap<RateColumn<Row>, number>,
  width: number,
): RateColumn<Row>[] {
  let shown = [...columns];
  const needed = (): number =>
    shown.reduce((sum, column) => sum + leastWidth(column, widest.get(column) ?? 0) + GAP, -GAP);
  while (shown.length > 1 && needed() > width) {
    const first = shown.reduce((a, b) => (b.leaves >= a.leaves ? b : a));
    shown = shown.filter((column) => column !== first);
  }
  return shown;
}

function leastWidth<Row>({ isLast }: RateColumn<Row>, widest: number): number {
  return isLast ? Math.min(widest, NARROWEST_NAME) : widest;
}

function roomOfLast<Row>(
  shown: readonly RateColumn<Row>[],
  widest: ReadonlyMap<RateColumn<Row>, number>,
  width: number,
): number {
  const others = shown.filter(({ isLast }) => !isLast);
  return width - others.reduce((sum, column) => sum + (widest.get(column) ?? 0) + GAP, 0);
}

/** Joins words with spaces into lines that are at most `width` wide; lines after the first are indented. */
export function wrap(text: string, width: number, indent: number): string[] {
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    const longer = line === '' ? word : `${line} ${word}`;
    if (line !== '' && widthOf(longer) > width) {
      lines.push(line);
      line = `${' '.repeat(Math.min(indent, Math.max(0, width - 10)))}${word}`;
    } else line = longer;
  }
  return [...lines, line];
}
