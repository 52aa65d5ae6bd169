/** Figures of rates, short enough for columns. */
import { humanSize } from '../../drivers/human-size.js';

/** A count per second: one decimal if it is small, else k, M of 1000. */
export function shortCount(value: number): string {
  if (value < 10) return String(Math.round(value * 10) / 10);
  if (value < 10_000) return String(Math.round(value));
  return value < 9_999_500 ? `${Math.round(value / 1e3)}k` : `${Math.round(value / 1e6)}M`;
}

/** Bytes, or bytes per second. */
export function shortBytes(value: number): string {
  return humanSize(value < 1024 ? Math.round(value) : value);
}

/** A time that is given in µs, with its unit; `-` if there is none. */
export function shortTime(us: number | null): string {
  if (us === null) return '-';
  if (us < 999.5) return `${us < 9.95 ? Math.round(us * 10) / 10 : Math.round(us)}us`;
  if (us < 999_500) return `${us < 9_950 ? Math.round(us / 100) / 10 : Math.round(us / 1e3)}ms`;
  return `${us < 9_950_000 ? Math.round(us / 1e5) / 10 : Math.round(us / 1e6)}s`;
}

/** Shares of a processor. */
export function shortPercent(percent: number): string {
  return `${percent < 9.95 ? Math.round(percent * 10) / 10 : Math.round(percent)}%`;
}
