/**
 * Draws the picture of a disk as SVG: a grid of cells, read like text from the top left, below a bar with the partitions
 * and above a legend. A cell with several kinds of contents is divided by their shares; a line at its foot says how much of
 * it has changed.
 *
 *      title
 *      [ 1 EFI ][ 2 root          ]
 *      0    ▇▇▇▇░░░░
 *      32M  ▇▇░░░░░░
 *      ▇ data, depth 0: 12M in /img/disk.qcow2
 */
import { humanSize } from '../../drivers/human-size.js';
import type { Cells } from './cells.js';
import { legendOf, rowText, summaryOf } from './legend.js';
import type { MarkedPartition, Picture } from './picture.js';
import { patternOf, styleOf, styleSheet } from './style.js';
import { escapeXml, shorten } from './xml.js';

const [CELL_WIDTH, CELL_HEIGHT] = [12, 14];
const [LEFT, TOP, MARGIN] = [64, 40, 12];
const [BAR_HEIGHT, LINE_HEIGHT] = [24, 19];
const CHANGED_HEIGHT = 3;
/** a part of a cell is at least this wide, so that a small one is seen */
const LEAST_WIDTH = 1;
/** of a cell: more would not be seen */
const MOST_PARTS = 6;
/** as wide as a digit of the text, roughly */
const LETTER = 6.6;
/** more than that many brackets would hide the cells */
const MOST_BRACKETS = 64;

/** A complete SVG document. Its length is bounded, whatever the disk is. */
export function drawPicture(picture: Picture): string {
  const { cells, partitions, columns = 64 } = picture;
  const grid = new Grid(cells, columns, partitions.length > 0 ? TOP + BAR_HEIGHT + 8 : TOP);
  const legend = legendOf(picture);
  const width = LEFT + columns * CELL_WIDTH + MARGIN;
  const height = grid.bottom + 12 + legend.length * LINE_HEIGHT + MARGIN;
  const title = `Map of ${picture.name}`;
  const most = Math.floor((width - 2 * MARGIN) / LETTER);
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" aria-labelledby="title desc">`,
    `<title id="title">${escapeXml(title)}</title>`,
    `<desc id="desc">${escapeXml(summaryOf(picture))}</desc>`,
    styleSheet(),
    `<rect class="p" width="${width}" height="${height}"/>`,
    `<text class="t" x="${MARGIN}" y="24">${escapeXml(shorten(title, Math.floor(most * 0.68)))}</text>`,
    ...drawBar(picture, columns * CELL_WIDTH),
    ...grid.draw(picture),
    ...legend.flatMap(({ sample, text }, index) => {
      const y = grid.bottom + 12 + index * LINE_HEIGHT;
      return [drawSample(sample, y), drawText(LEFT, y + 12, shorten(text, most - LEFT / LETTER))];
    }),
    '</svg>',
    '',
  ].join('\n');
}

function drawText(x: number, y: number, text: string, style = ''): string {
  return `<text${style} x="${round(x)}" y="${y}">${escapeXml(text)}</text>`;
}

/** The sample of a class, or of a mark, in the legend. */
function drawSample(sample: number | 'changed' | 'partition' | null, y: number): string {
  const x = LEFT - 8 - CELL_WIDTH;
  const box = `M${x} ${y + 1}h${CELL_WIDTH}v${CELL_HEIGHT}h-${CELL_WIDTH}z`;
  if (sample === null) return '';
  if (sample === 'partition') return `<path class="k" d="M${x + 4} ${y + 1}h-4v${CELL_HEIGHT}h4"/>`;
  if (sample !== 'changed') return fill(sample, box);
  const foot = `M${x} ${y + 1 + CELL_HEIGHT - CHANGED_HEIGHT}h${CELL_WIDTH}v${CHANGED_HEIGHT}h-${CELL_WIDTH}z`;
  return `<path class="z" d="${box}"/><path class="m" d="${foot}"/>`;
}

/** A path with the colour and the pattern of a class. */
function fill(which: number, path: string): string {
  const pattern = patternOf(which);
  const colour = `<path class="${styleOf(which)}" d="${path}"/>`;
  return pattern === null ? colour : `${colour}<path fill="url(#${pattern})" d="${path}"/>`;
}

/** The partitions in a bar that is as long as the disk. */
function drawBar({ cells, partitions }: Picture, width: number): string[] {
  const scale = width / Math.max(1, cells.sizeBytes);
  return partitions.slice(0, MOST_BRACKETS).flatMap(({ name, offset, size }) => {
    const [x, wide] = [LEFT + offset * scale, Math.max(2, size * scale)];
    const fits = Math.floor((wide - 8) / LETTER);
    const box = `<rect class="k" x="${round(x)}" y="${TOP}" width="${round(wide)}" height="${BAR_HEIGHT - 6}"/>`;
    return fits < Math.min(3, name.length) ? [box] : [box, drawText(x + 4, TOP + 13, shorten(name, fits))];
  });
}

class Grid {
  readonly bottom: number;
  readonly #cells: Cells;
  readonly #columns: number;
  readonly #top: number;
  readonly #rows: number;

  constructor(cells: Cells, columns: number, top: number) {
    this.#cells = cells;
    this.#columns = columns;
    this.#top = top;
    this.#rows = Math.ceil(cells.count / columns);
    this.bottom = top + this.#rows * CELL_HEIGHT;
  }

  draw(picture: Picture): string[] {
    const classes = [...this.#drawClasses()].sort(([one], [other]) => one - other);
    const marks = picture.changes === null ? '' : this.#drawChanges();
    const brackets = picture.partitions.slice(0, MOST_BRACKETS).map((each) => this.#drawBracket(each));
    return [
      ...classes.map(([which, path]) => fill(which, path)),
      `<path class="g" d="${this.#lines()}"/>`,
      ...(marks === '' ? [] : [`<path class="m" d="${marks}"/>`]),
      ...(brackets.length === 0 ? [] : [`<path class="k" d="${brackets.join('')}"/>`]),
      ...Array.from({ length: this.#rows }, (_, row) => this.#drawRow(row)),
    ];
  }

  /** By class, the path of all its parts. Equal parts that touch are one. */
  #drawClasses(): Map<number, string> {
    const paths = new Map<number, string>();
    const open = new Map<number, { x: number; y: number; end: number }>();
    const close = (which: number): void => {
      const box = open.get(which);
      if (box === undefined) return;
      paths.set(which, (paths.get(which) ?? '') + boxPath(box.x, box.y, round(box.end - box.x), CELL_HEIGHT));
    };
    for (let cell = 0; cell < this.#cells.count; cell++) {
      const [x, y] = this.#corner(cell);
      for (const { which, from, to } of this.#partsOf(cell)) {
        const last = open.get(which);
        if (last?.y === y && last.end === round(x + from)) last.end = round(x + to);
        else {
          close(which);
          open.set(which, { x: round(x + from), y, end: round(x + to) });
        }
      }
    }
    for (const which of open.keys()) close(which);
    return paths;
  }

  /** The parts of a cell from left to right. */
  #partsOf(cell: number): { which: number; from: number; to: number }[] {
    const wide = this.#width(cell);
    const largest = this.#cells.shares(cell).sort((one, other) => other.share - one.share);
    const shares = largest.slice(0, MOST_PARTS).sort((one, other) => one.which - other.which);
    const least = Math.min(LEAST_WIDTH, wide / Math.max(1, shares.length));
    const widths = shares.map(({ share }) => Math.max(least, share * wide));
    const scale = wide / widths.reduce((sum, each) => sum + each, 0);
    let from = 0;
    return shares.map(({ which }, index) => {
      const part = { which, from, to: from + (widths[index] as number) * scale };
      from = part.to;
      return part;
    });
  }

  #drawChanges(): string {
    let path = '';
    for (let cell = 0; cell < this.#cells.count; cell++) {
      const share = this.#cells.changedShare(cell);
      if (share === 0) continue;
      const [x, y] = this.#corner(cell);
      const wide = Math.max(2, share * this.#width(cell));
      path += boxPath(x, y + CELL_HEIGHT - CHANGED_HEIGHT, round(wide), CHANGED_HEIGHT);
    }
    return path;
  }

  #lines(): string {
    const wide = this.#columns * CELL_WIDTH;
    const high = this.bottom - this.#top;
    const down = Array.from(
      { length: this.#columns },
      (_, column) => `M${LEFT + column * CELL_WIDTH} ${this.#top}v${high}`,
    );
    const across = Array.from({ length: this.#rows }, (_, row) => `M${LEFT} ${this.#top + row * CELL_HEIGHT}h${wide}`);
    return [...down, ...across].join('');
  }

  /** Brackets around the cells of a partition. */
  #drawBracket({ offset, size }: MarkedPartition): string {
    const [x, y] = this.#place(offset);
    const [endX, endY] = this.#place(offset + size, true);
    return `M${round(x + 4)} ${y}H${x}v${CELL_HEIGHT}h4M${round(endX - 4)} ${endY}H${endX}v${CELL_HEIGHT}h-4`;
  }

  /** The label of a row, and its contents as a text for readers and pointers. */
  #drawRow(row: number): string {
    const first = row * this.#columns;
    const y = this.#top + row * CELL_HEIGHT;
    const label = humanSize(first * this.#cells.cellBytes);
    const count = Math.min(this.#columns, this.#cells.count - first);
    const box = `<rect class="w" x="${LEFT}" y="${y}" width="${this.#columns * CELL_WIDTH}" height="${CELL_HEIGHT}"/>`;
    const contents = escapeXml(rowText(this.#cells, first, count));
    const text = drawText(LEFT - 6, y + 11, label, ' class="f" text-anchor="end"');
    return `${text}<g><title>${contents}</title>${box}</g>`;
  }

  #corner(cell: number): [x: number, y: number] {
    const row = Math.floor(cell / this.#columns);
    return [LEFT + (cell - row * this.#columns) * CELL_WIDTH, this.#top + row * CELL_HEIGHT];
  }

  /** The last cell may stand for less than the others. */
  #width(cell: number): number {
    const { cellBytes } = this.#cells;
    return Math.max(2, (this.#cells.bytesOf(cell) / cellBytes) * CELL_WIDTH);
  }

  /** @param isEnd the end of a row and not the start of the next one */
  #place(byte: number, isEnd = false): [x: number, y: number] {
    const { cellBytes, sizeBytes } = this.#cells;
    const inside = Math.min(byte, sizeBytes);
    const cell = Math.max(0, isEnd ? Math.ceil(inside / cellBytes) - 1 : Math.floor(inside / cellBytes));
    const [x, y] = this.#corner(Math.min(cell, this.#cells.count - 1));
    return [round(x + ((inside - cell * cellBytes) / cellBytes) * CELL_WIDTH), y];
  }
}

function boxPath(x: number, y: number, wide: number, high: number): string {
  return `M${round(x)} ${y}h${wide}v${high}h-${wide}z`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
