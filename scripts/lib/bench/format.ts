/** Numbers for people. */
import type { Unit } from './jobs.js';

/** Three significant digits, large numbers in thousands: `612k`, `43.1k`, `950`. */
export function formatValue(value: number, unit: Unit): string {
  return unit === 'IOPS' && value >= 1000 ? `${threeDigits(value / 1000)}k` : threeDigits(value);
}

/** `5.3×`, `0.48×`, `14×` */
export function formatRatio(ratio: number): string {
  return `${ratio < 1 ? ratio.toFixed(2) : ratio < 10 ? ratio.toFixed(1) : ratio.toFixed(0)}×`;
}

export function threeDigits(value: number): string {
  if (value >= 100) return value.toFixed(0);
  if (value >= 10) return value.toFixed(1);
  return value.toFixed(2);
}
