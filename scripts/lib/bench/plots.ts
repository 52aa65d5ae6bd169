/** The charts of a record: one for each family of jobs that differ only in depth, and charts of the costs. */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Bar, type Chart, drawChart } from './chart.js';
import { formatValue, threeDigits } from './format.js';
import type { BenchRecord, Reading, Result } from './record.js';
import { spread } from './statistics.js';
import { groupByJob } from './table.js';

/** A chart and the name of its file, without the extension. */
export interface NamedChart extends Chart {
  name: string;
}

interface Aspect {
  suffix: string;
  title: string;
  part: (reading: Reading) => number | null | undefined;
  format: (value: number, result: Result) => string;
}

const VALUE: Aspect = {
  suffix: '',
  title: '',
  part: ({ value }) => value,
  format: (value, { unit }) => formatValue(value, unit),
};
const COSTS: readonly Aspect[] = [
  { suffix: '-p99', title: 'p99 latency, µs', part: ({ latencyUs }) => latencyUs?.p99, format: threeDigits },
  {
    suffix: '-cpu',
    title: 'CPU time of the serving processes, µs a request',
    part: ({ cpuUsPerRequest }) => cpuUsPerRequest,
    format: threeDigits,
  },
];

/** `randread-4k-qd32-cold` belongs to `randread-4k-cold`; jobs without a depth are one family per unit. */
export function familyOf({ job, unit }: Pick<Result, 'job' | 'unit'>): string {
  const parts = job.split('-');
  const withoutDepth = parts.filter((part) => !/^qd\d+$/.test(part));
  if (withoutDepth.length < parts.length) return withoutDepth.join('-');
  return unit === 's' ? 'workloads' : unit === 'ms' ? 'attach-and-detach' : job;
}

export function chartsOf({ results }: Pick<BenchRecord, 'results'>): NamedChart[] {
  const families = new Map<string, Result[]>();
  for (const result of results) families.set(familyOf(result), [...(families.get(familyOf(result)) ?? []), result]);
  const charts = [...families].flatMap(([family, members]) =>
    [VALUE, ...COSTS].map((aspect) => chartOf(family, members, aspect)),
  );
  return charts.filter(({ groups }) => groups.length > 0);
}

function chartOf(family: string, members: readonly Result[], aspect: Aspect): NamedChart {
  const first = members[0];
  const order = first?.better === 'less' || aspect !== VALUE ? ' (less is better)' : '';
  const title = `${family}: ${aspect === VALUE ? (first?.unit ?? '') : aspect.title}${order}`;
  const groups = [...groupByJob(members)].map(([job, results]) => ({
    label: /-qd(\d+)/.exec(job)?.[1]?.replace(/^/, 'queue depth ') ?? job,
    bars: results.flatMap((result) => barOf(result, aspect)),
  }));
  return { name: `${family}${aspect.suffix}`, title, groups: groups.filter(({ bars }) => bars.length > 0) };
}

function barOf(result: Result, { part, format }: Aspect): Bar[] {
  const values = spread(result.rounds.flatMap((reading) => (reading === null ? [] : (part(reading) ?? []))));
  return values === null ? [] : [{ label: result.target, text: format(values.median, result), ...values }];
}

/** Writes one SVG file for each chart; returns their paths. */
export async function writePlots(directory: string, record: BenchRecord): Promise<string[]> {
  await mkdir(directory, { recursive: true });
  const paths: string[] = [];
  for (const chart of chartsOf(record)) {
    const path = join(directory, `${chart.name}.svg`);
    await writeFile(path, drawChart(chart));
    paths.push(path);
  }
  return paths;
}
