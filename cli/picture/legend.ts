/** The words of the picture of a disk: its legend, its description for screen readers, and what a row contains. */
import { humanSize } from '../../drivers/human-size.js';
import { type Cells, CLASSES, DEPTHS } from './cells.js';
import type { Picture } from './picture.js';

/** A line of the legend. */
export interface LegendLine {
  /** a class, or a mark; null: only text */
  readonly sample: number | 'changed' | 'partition' | null;
  readonly text: string;
}

/** how many partitions are listed */
const MOST_PARTITIONS = 16;

const MEANINGS: Readonly<Record<string, string>> = {
  compressed: 'compressed',
  allocated: 'allocated: has a place, and is still zeros',
  zeros: 'zeros, or a hole',
  absent: 'absent: no image has it, it reads as zeros',
};

export function legendOf(picture: Picture): LegendLine[] {
  const { cells, partitions, changes } = picture;
  const ofClasses = CLASSES.flatMap((_, which): LegendLine[] => {
    return cells.sums[which] === 0 ? [] : [{ sample: which, text: classText(picture, which) }];
  });
  const listed = partitions.slice(0, MOST_PARTITIONS).map(partitionText);
  const more = partitions.length - listed.length;
  const marks: LegendLine[] = [
    ...(changes === null ? [] : [{ sample: 'changed', text: `${changes}: ${humanSize(cells.changedBytes)}` } as const]),
    ...(listed.length === 0
      ? []
      : [
          {
            sample: 'partition',
            text: `partitions: ${listed.join('; ')}${more > 0 ? `; and ${more} more` : ''}`,
          } as const,
        ]),
    { sample: null, text: `a cell is ${humanSize(cells.cellBytes)}; the disk has ${cells.sizeBytes} bytes` },
  ];
  return [...ofClasses, ...marks];
}

function partitionText({ name, offset, size }: Picture['partitions'][number]): string {
  return `${name}, ${humanSize(size)} at ${humanSize(offset)}`;
}

function classText(picture: Picture, which: number): string {
  const { kind, depth } = CLASSES[which] as (typeof CLASSES)[number];
  const size = humanSize(picture.cells.sums[which] ?? 0);
  if (kind === 'data') return `data, ${depthText(picture, depth)}: ${size}${placeText(picture, depth)}`;
  if (kind === 'compressed') return `compressed, ${depthText(picture, depth)}: ${size}`;
  return `${MEANINGS[kind]}: ${size}`;
}

function depthText({ cells }: Picture, depth: number): string {
  const isShared = depth === DEPTHS - 1 && [...cells.depths.keys()].some((each) => each >= DEPTHS);
  return `depth ${depth}${isShared ? ' and deeper' : ''}`;
}

/** In which files the bytes of a depth are. */
function placeText({ cells }: Picture, depth: number): string {
  const isLast = depth === DEPTHS - 1;
  const sums = [...cells.depths].filter(([each]) => each === depth || (isLast && each > depth));
  const files = [...new Set(sums.flatMap(([, { files }]) => files))];
  if (files.length === 0) return ' in memory';
  const [first = '', ...others] = files;
  return others.length === 0 ? ` in ${first}` : ` in ${first} and other files`;
}

/** All that the picture shows, for those who do not see it. */
export function summaryOf(picture: Picture): string {
  const lines = legendOf(picture).map(({ text }) => text);
  return `Where the bytes of the disk are. Each cell stands for a range; the first is at the top left. ${lines.join('. ')}.`;
}

/** What some cells contain. */
export function rowText(cells: Cells, first: number, count: number): string {
  const sums = new Map<string, number>();
  let bytes = 0;
  let changed = 0;
  for (let cell = first; cell < first + count; cell++) {
    const own = cells.bytesOf(cell);
    bytes += own;
    changed += cells.changedShare(cell) * own;
    for (const { which, share } of cells.shares(cell)) {
      const { kind, depth } = CLASSES[which] as (typeof CLASSES)[number];
      const name = kind === 'data' || kind === 'compressed' ? `${kind} of depth ${depth}` : kind;
      sums.set(name, (sums.get(name) ?? 0) + share * own);
    }
  }
  const parts = [...sums].map(([name, sum]) => `${humanSize(sum)} ${name}`);
  if (changed > 0) parts.push(`${humanSize(changed)} changed`);
  const start = first * cells.cellBytes;
  return `${humanSize(start)} to ${humanSize(start + bytes)}: ${parts.join(', ') || 'not known'}`;
}
