/** Prints sizes for people. */

/** A size for people: K, M, G, T of 1024, at most one decimal. */
export function humanSize(sizeBytes: number): string {
  const units = ['', 'K', 'M', 'G', 'T', 'P'];
  let value = sizeBytes;
  let unit = 0;
  // 1023.95 would be shown as 1024.0
  while (value >= 1023.95 && unit < units.length - 1 && (unit > 0 || value >= 1024)) {
    value /= 1024;
    unit += 1;
  }
  return `${Math.round(value * 10) / 10}${units[unit]}`;
}
