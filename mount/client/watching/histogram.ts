/**
 * Latencies as histograms. A bus counts since the attach; the difference of two of its histograms is the histogram of the
 * requests that ended in between, so it has percentiles of its own.
 */
import type { HistogramBucket } from '../../control/interface.js';

export type Histogram = readonly HistogramBucket[];

/** What was counted after the earlier histogram. Counts that are lower than before are taken for 0. */
export function subtract(later: Histogram, earlier: Histogram): HistogramBucket[] {
  const before = new Map(earlier.map(([fromUs, , requests]) => [fromUs, requests]));
  return later.flatMap(([fromUs, toUs, requests]): HistogramBucket[] => {
    const more = requests - (before.get(fromUs) ?? 0);
    return more > 0 ? [[fromUs, toUs, more]] : [];
  });
}

/** The sum of several, by their buckets. */
export function add(histograms: readonly Histogram[]): HistogramBucket[] {
  const sum = new Map<number, HistogramBucket>();
  for (const [fromUs, toUs, requests] of histograms.flat()) {
    sum.set(fromUs, [fromUs, toUs, requests + (sum.get(fromUs)?.[2] ?? 0)]);
  }
  return [...sum.values()].sort(([a], [b]) => a - b);
}

/** How many requests it counts. */
export function total(histogram: Histogram): number {
  return histogram.reduce((sum, [, , requests]) => sum + requests, 0);
}

/**
 * The latency in µs that `share` of the requests did not exceed; null if there are none. Assumes that the requests of a
 * bucket are evenly spread, as GET /stats does. A bucket is at most a quarter wider than it begins.
 */
export function percentile(histogram: Histogram, share: number): number | null {
  let left = total(histogram) * share;
  for (const [fromUs, toUs, requests] of histogram) {
    if (left <= requests) return fromUs + (toUs - fromUs) * (left / requests);
    left -= requests;
  }
  return null;
}

/**
 * The time that all its requests took together, in µs: of each bucket the middle. The average of many requests is right
 * to about one percent, and never wrong by more than an eighth.
 */
export function totalUs(histogram: Histogram): number {
  return histogram.reduce((sum, [fromUs, toUs, requests]) => sum + ((fromUs + toUs) / 2) * requests, 0);
}
