/** The table at the end of a torture with second faults. */
import type { Journal } from './journal.js';

/** Median, 95th percentile and maximum of some times. @throws RangeError if there are none */
export function spread(times: readonly number[]): { median: number; p95: number; max: number } {
  if (times.length === 0) throw new RangeError('no times');
  const sorted = [...times].sort((a, b) => a - b);
  const at = (part: number): number => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] as number;
  return { median: at(0.5), p95: at(0.95), max: at(1) };
}

function rows(title: readonly string[], lines: readonly (readonly string[])[]): string[] {
  const widths = title.map((word, i) => Math.max(word.length, ...lines.map((line) => (line[i] ?? '').length)));
  const pad = (line: readonly string[]): string =>
    line.map((word, i) => (i === 0 ? word.padEnd(widths[i] ?? 0) : word.padStart(widths[i] ?? 0))).join('  ');
  return [title, ...lines].map((line) => pad(line).trimEnd());
}

/** The counts of what was done, the times of the commands, and the errors. */
export function printTable(journal: Journal, leaked: readonly string[]): string {
  const counts = [...journal.counts].sort(([a], [b]) => (a < b ? -1 : 1));
  const times = [...journal.commands].sort(([a], [b]) => (a < b ? -1 : 1));
  const commands = times.map(([kind, all]) => {
    const { median, p95, max } = spread(all);
    const refused = journal.refused.get(kind) ?? 0;
    return [kind, `${all.length}`, `${refused}`, ...[median, p95, max].map((ms) => `${Math.round(ms)}`)];
  });
  return [
    ...rows(
      ['what', 'times'],
      counts.map(([what, count]) => [what, `${count}`]),
    ),
    '',
    ...rows(['command or wait', 'times', 'refused', 'median ms', '95 % ms', 'max ms'], commands),
    '',
    `errors ${journal.errors.length}`,
    ...journal.errors.map((text) => `  ${text}`),
    `leaks  ${leaked.length}`,
    ...leaked.map((text) => `  ${text}`),
  ].join('\n');
}
