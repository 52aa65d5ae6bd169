/**
 * A run against a recorded one. Ratios are compared, not times: another machine, or the same one with something else
 * to do, changes the times of all targets, but hardly what one is to the other.
 */
import { formatRatio } from './format.js';
import type { BenchRecord } from './record.js';
import type { Spread } from './statistics.js';

export interface Comparison {
  job: string;
  target: string;
  recorded: number;
  now: number;
  /** a ratio below it is lower than noise explains */
  lowest: number;
  isSlower: boolean;
}

/** however far the recorded rounds were apart, a ratio that fell by more than this is told */
const LARGEST_ROOM = 0.5;

/**
 * The lowest ratio that may still be noise: below the recorded median by `tolerance`, or by as much as the recorded
 * rounds themselves went below it, whichever is more.
 */
export function lowestAllowed(recorded: Spread, tolerance: number): number {
  const ownRoom = (recorded.median - recorded.min) / recorded.median;
  return recorded.median * (1 - Math.max(tolerance, Math.min(ownRoom, LARGEST_ROOM)));
}

/** All that both records have a ratio of; the baseline itself has nothing to tell. */
export function compareRecords(recorded: BenchRecord, now: BenchRecord, tolerance: number): Comparison[] {
  return recorded.results.flatMap(({ job, target, ratio }) => {
    const current = now.results.find((result) => result.job === job && result.target === target)?.ratio;
    if (ratio === null || !current || target === recorded.baseline) return [];
    const lowest = lowestAllowed(ratio, tolerance);
    return [{ job, target, recorded: ratio.median, now: current.median, lowest, isSlower: current.median < lowest }];
  });
}

/** What this run was to do: the names of its jobs and targets. */
export interface Asked {
  jobs: readonly string[];
  targets: readonly string[];
}

/** Jobs and targets with a recorded ratio that this run was asked for, and has none of. */
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
