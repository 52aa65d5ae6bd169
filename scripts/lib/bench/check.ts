/**
 * Compares a run with a recorded one. Compares ratios, not times: another machine, or other load on the same one,
 * changes the times of all targets, but hardly the ratio between them.
 */
import { formatRatio } from './format.js';
import type { BenchRecord } from './record.js';
import type { Spread } from './statistics.js';

export interface Comparison {
  job: string;
  target: string;
  recorded: number;
  now: number;
  /** a ratio below this is too low to be noise */
  lowest: number;
  isSlower: boolean;
}

/** a ratio that fell by more than this is reported, however much the recorded rounds differed */
const LARGEST_ROOM = 0.5;

/**
 * The lowest ratio that may still be noise: below the recorded median by `tolerance`, or by as much as the recorded
 * rounds themselves went below it, whichever is more.
 */
export function lowestAllowed(recorded: Spread, tolerance: number): number {
  const ownRoom = (recorded.median - recorded.min) / recorded.median;
  return recorded.median * (1 - Math.max(tolerance, Math.min(ownRoom, LARGEST_ROOM)));
}

/** Compares every ratio that both records have, except those of the baseline itself. */
export function compareRecords(recorded: BenchRecord, now: BenchRecord, tolerance: number): Comparison[] {
  return recorded.results.flatMap(({ job, target, ratio }) => {
    const current = now.results.find((result) => result.job === job && result.target === target)?.ratio;
    if (ratio === null || !current || target === recorded.baseline) return [];
    const lowest = lowestAllowed(ratio, tolerance);
    return [{ job, target, recorded: ratio.median, now: current.median, lowest, isSlower: current.median < lowest }];
  });
}

/** The names of the jobs and targets of this run. */
export interface Asked {
  jobs: readonly string[];
  targets: readonly string[];
}

/** The chosen jobs and targets that have a recorded ratio but none in this run. */
export function notCompared(recorded: BenchRecord, comparisons: readonly Comparison[], asked: Asked): string[] {
  return recorded.results
    .filter(({ job, target }) => asked.jobs.includes(job) && asked.targets.includes(target))
    .filter(({ ratio, target }) => ratio !== null && target !== recorded.baseline)
    .filter(({ job, target }) => !comparisons.some((each) => each.job === job && each.target === target))
    .map(({ job, target }) => `${job} on ${target}`);
}

export function describeComparison({ job, target, recorded, now, lowest, isSlower }: Comparison): string {
  const limit = `recorded ${formatRatio(recorded)}, at least ${formatRatio(lowest)} wanted`;
  return `${isSlower ? 'SLOWER' : 'ok    '}  ${job} on ${target}: ${formatRatio(now)} (${limit})`;
}
