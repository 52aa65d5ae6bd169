/** The results as text: one table of job × target, then each job in full. */
import { formatRatio, formatValue, threeDigits } from './format.js';
import type { BenchRecord, Reading, Result } from './record.js';
import { median } from './statistics.js';

const GAP = '  ';

const WIDTH = 120;

/**
 * A table of jobs and targets: the median, and how many times as good as the baseline. Targets that do not fit in
 * the width get a table below.
 */
export function summaryTable({ results, baseline }: Pick<BenchRecord, 'results' | 'baseline'>): string {
  const tables: string[] = [];
  let targets = [...new Set(results.map(({ target }) => target))];
  while (targets.length > 0) {
    let count = targets.length;
    while (count > 1 && widthOf(tableOf(results, targets.slice(0, count), baseline)) > WIDTH) count--;
    tables.push(tableOf(results, targets.slice(0, count), baseline));
    targets = targets.slice(count);
  }
  return tables.join('\n\n');
}

const widthOf = (text: string): number => Math.max(...text.split('\n').map((line) => line.length));

function tableOf(results: readonly Result[], targets: readonly string[], baseline: string): string {
  const rows = [...groupByJob(results)].map(([job, group]) => {
    const find = (target: string): Result | undefined => group.find((result) => result.target === target);
    return [`${job} (${group[0]?.unit ?? ''})`, ...targets.map((target) => cell(find(target), baseline))];
  });
  return alignColumns([['', ...targets], ...rows]);
}

function cell(result: Result | undefined, baseline: string): string {
  if (result === undefined) return '–';
  if (result.median === null) return 'failed';
  const ratio = result.ratio === null || result.target === baseline ? '' : ` ${formatRatio(result.ratio.median)}`;
  return `${formatValue(result.median, result.unit)}${ratio}`;
}

/** Each job with the spread of its ratios, its latency and the CPU time of the serving processes. */
export function detailTables({ results, baseline }: BenchRecord): string {
  const head = ['', 'median', `× ${baseline}`, 'lowest–highest', 'p50 µs', 'p99 µs', 'p99.9 µs', 'CPU µs/request'];
  const tables = [...groupByJob(results)].map(([job, group]) => {
    const isFio = group.some((result) => medianOf(result, (reading) => reading.latencyUs?.p50) !== null);
    const rows = group.map((result) => detailRow(result).slice(0, isFio ? head.length : 4));
    const [first] = group;
    const order = first?.better === 'less' ? ', less is better' : '';
    return `${job} (${first?.unit ?? ''}${order})\n${alignColumns([head.slice(0, isFio ? head.length : 4), ...rows])}`;
  });
  return tables.join('\n\n');
}

function detailRow(result: Result): string[] {
  const { ratio, unit } = result;
  const number = (value: number | null): string => (value === null ? '–' : threeDigits(value));
  return [
    `${GAP}${result.target}`,
    result.median === null ? 'failed' : formatValue(result.median, unit),
    ratio === null ? '–' : formatRatio(ratio.median),
    ratio === null ? '–' : `${formatRatio(ratio.min)}–${formatRatio(ratio.max)}`,
    number(medianOf(result, (reading) => reading.latencyUs?.p50)),
    number(medianOf(result, (reading) => reading.latencyUs?.p99)),
    number(medianOf(result, (reading) => reading.latencyUs?.p999)),
    number(medianOf(result, (reading) => reading.cpuUsPerRequest)),
  ];
}

/** The median over the rounds of one value of the readings; null if no reading has it. */
export function medianOf({ rounds }: Result, part: (reading: Reading) => number | null | undefined): number | null {
  return median(rounds.flatMap((reading) => (reading === null ? [] : (part(reading) ?? []))));
}

export function groupByJob(results: readonly Result[]): Map<string, Result[]> {
  const groups = new Map<string, Result[]>();
  for (const result of results) groups.set(result.job, [...(groups.get(result.job) ?? []), result]);
  return groups;
}

/** Aligns rows of cells: the first column to the left, all others to the right. */
export function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, text] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, text.length);
  }
  const line = (row: readonly string[]): string =>
    row.map((text, i) => (i === 0 ? text.padEnd(widths[i] ?? 0) : text.padStart(widths[i] ?? 0))).join(GAP);
  return rows.map((row) => line(row).trimEnd()).join('\n');
}
