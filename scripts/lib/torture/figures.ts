/** What a torture counts, and what it may not find. */

/** Counts of what was done. */
export interface Deeds {
  kills: number;
  upgrades: number;
  stops: number;
  attaches: number;
  detaches: number;
  /** runs of fio that came to their end */
  verified: number;
}

/** What processes and the machine hold; measured before and after, with the same vbds attached. */
export interface Holdings {
  /** memory of their own, without files */
  keeperBytes: number;
  serverBytes: number;
  fds: number;
  mounts: number;
  files: number;
  processes: number;
}

export interface Findings {
  readonly errors: string[];
  /** fio has read other bytes than it wrote */
  mismatches: number;
}

/**
 * What the heaps of three processes may grow in a run that has no leak. A keeper's grows from 18 to 30 MB within its first
 * hundred attaches, and stays there.
 */
const HEAP_TOLERANCE_BYTES = 36 << 20;

/** One line for each thing that there is more of than before. */
export function leaks(before: Holdings, after: Holdings): string[] {
  const grown = (Object.keys(before) as (keyof Holdings)[]).filter((name) => {
    const tolerance = name.endsWith('Bytes') ? HEAP_TOLERANCE_BYTES : 0;
    return after[name] - before[name] > tolerance;
  });
  return grown.map((name) => `${name}: ${before[name]} before, ${after[name]} after`);
}

export function printFigures(deeds: Deeds, findings: Findings, leaked: readonly string[]): string {
  const lines = Object.entries(deeds).map(([name, count]) => `${name.padEnd(11)}${count}`);
  lines.push(`errors     ${findings.errors.length}`, ...findings.errors.map((text) => `  ${text}`));
  lines.push(`mismatches ${findings.mismatches}`, `leaks      ${leaked.length}`, ...leaked.map((text) => `  ${text}`));
  return lines.join('\n');
}
