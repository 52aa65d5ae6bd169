/** A bar chart as SVG: groups of horizontal bars from a common zero, each with a whisker from minimum to maximum. */
import type { Spread } from './statistics.js';

export interface Bar extends Spread {
  label: string;
  /** the median, as text beside the bar */
  text: string;
}

export interface Chart {
  title: string;
  groups: { label: string; bars: Bar[] }[];
}

const WIDTH = 760;
const LABELS = 170;
const NUMBERS = 70;
const TITLE = 36;
const GROUP = 26;
const BAR = 20;
const MARGIN = 12;

/** ours in blue, the others in grey: so the comparison is visible without reading */
const OURS = '#2f6fb5';
const OTHERS = '#9aa3ad';

export function drawChart({ title, groups }: Chart): string {
  const bars = groups.flatMap((group) => group.bars);
  const largest = Math.max(...bars.map(({ max }) => max), 0);
  const toX = (value: number): number => round(LABELS + (value / (largest || 1)) * (WIDTH - LABELS - NUMBERS));
  const height = TITLE + groups.length * GROUP + bars.length * BAR + MARGIN;
  const parts: string[] = [];
  let y = TITLE;
  for (const group of groups) {
    parts.push(`<text x="${MARGIN}" y="${y + GROUP - 9}" class="group">${escapeXml(group.label)}</text>`);
    y += GROUP;
    for (const bar of group.bars) {
      parts.push(drawBar(bar, y, toX));
      y += BAR;
    }
  }
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" viewBox="0 0 ${WIDTH} ${height}" role="img">`,
    `<title>${escapeXml(title)}</title>`,
    '<style>text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-size:15px;font-weight:600}' +
      '.group{font-weight:600}.whisker{stroke:#24292f;fill:none}</style>',
    `<rect width="${WIDTH}" height="${height}" fill="#fff"/>`,
    `<text x="${MARGIN}" y="24" class="title">${escapeXml(title)}</text>`,
    ...parts,
    '</svg>',
    '',
  ].join('\n');
}

function drawBar({ label, text, median, min, max }: Bar, y: number, toX: (value: number) => number): string {
  const colour = label.startsWith('fus') ? OURS : OTHERS;
  const middle = y + BAR / 2;
  const [low, high] = [toX(min), toX(max)];
  return [
    `<text x="${LABELS - 8}" y="${middle + 4}" text-anchor="end">${escapeXml(label)}</text>`,
    `<rect x="${LABELS}" y="${y + 3}" width="${round(toX(median) - LABELS)}" height="${BAR - 6}" fill="${colour}"/>`,
    `<path class="whisker" d="M${low} ${middle - 3}v6M${low} ${middle}H${high}M${high} ${middle - 3}v6"/>`,
    `<text x="${Math.max(high, toX(median)) + 6}" y="${middle + 4}">${escapeXml(text)}</text>`,
  ].join('');
}

const round = (value: number): number => Math.round(value * 10) / 10;

const ESCAPES: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const escapeXml = (text: string): string => text.replace(/[&<>"]/g, (c) => ESCAPES[c] ?? c);
