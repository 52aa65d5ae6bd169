/**
 * Medians and ratios. A machine drifts, so what is compared is always two targets in the same round, and what is told
 * is the median of those ratios with the smallest and the largest of them.
 */

/** whether a larger or a smaller value is the better one */
export type Better = 'more' | 'less';

export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** The middle value, or the mean of the two middle ones; null for none. */
export function median(values: readonly number[]): number | null {
  const sorted = [...values].sort((a, b) => a - b);
  const high = sorted[Math.floor(sorted.length / 2)];
  const low = sorted[Math.floor((sorted.length - 1) / 2)];
  return high === undefined || low === undefined ? null : (low + high) / 2;
}

/** Null for no values. */
export function spread(values: readonly number[]): Spread | null {
  const middle = median(values);
  return middle === null ? null : { median: middle, min: Math.min(...values), max: Math.max(...values) };
}

/**
 * How many times as good as the baseline, round by round: above 1 is better than the baseline, be it more requests or
 * fewer seconds. Rounds in which one of the two has no value do not count; null where none is left.
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
 * The order in which a round visits the targets: each round begins with another one, and every other round goes
 * backwards, so that nobody always runs first, or always after the same neighbour.
 */
export function visitingOrder<T>(items: readonly T[], round: number): T[] {
  const start = items.length === 0 ? 0 : Math.floor(round / 2) % items.length;
  const rotated = [...items.slice(start), ...items.slice(0, start)];
  return round % 2 === 0 ? rotated : rotated.reverse();
}
