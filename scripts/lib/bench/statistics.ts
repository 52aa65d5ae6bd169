/**
 * Medians and ratios. The speed of a machine drifts, so only targets of the same round are compared. The result is the
 * median of these ratios, with the smallest and the largest of them.
 */

/** whether larger or smaller values are better */
export type Better = 'more' | 'less';

export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** The middle value, or the mean of the two middle values; null if there are none. */
export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const high = sorted[Math.floor(sorted.length / 2)];
  const low = sorted[Math.floor((sorted.length - 1) / 2)];
  return high === undefined || low === undefined ? null : (low + high) / 2;
}

/** Null if there are no values. */
export function spread(values: readonly number[]): Spread | null {
  const middle = median(values);
  return middle === null ? null : { median: middle, min: Math.min(...values), max: Math.max(...values) };
}

/**
 * How many times as good as the baseline, round by round: above 1 is better than the baseline (more requests, or fewer
 * seconds). Rounds in which one of the two has no value do not count; null if no round is left.
 */
export function ratioSpread(
  values: readonly (number | null)[],
  baseline: readonly (number | null)[],
  better: Better,
): Spread | null {
  const ratios = values.flatMap((value, round) => {
    const base = baseline[round] ?? null;
    if (value === null || base === null || value <= 0 || base <= 0) return [];
    return [better === 'more' ? value / base : base / value];
  });
  return spread(ratios);
}

/**
 * The order of the targets in a round: each round begins with another target, and every second round goes backwards, so
 * that no target always runs first, or always after the same other target.
 */
export function visitingOrder<T>(items: readonly T[], round: number): T[] {
  const start = items.length === 0 ? 0 : Math.floor(round / 2) % items.length;
  const rotated = [...items.slice(start), ...items.slice(0, start)];
  return round % 2 === 0 ? rotated : rotated.reverse();
}
