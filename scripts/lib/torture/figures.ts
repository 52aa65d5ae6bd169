/** The counts of a torture run, and the errors that it must not find. */

/** How often each action was done. */
export interface Deeds {
  kills: number;
  upgrades: number;
  stops: number;
  attaches: number;
  detaches: number;
  /** completed runs of fio */
  verified: number;
}

/** The resources that processes and the machine use; measured before and after, with the same vbds attached. */
export interface Holdings {
  /** private memory, without files */
  keeperBytes: number;
  serverBytes: number;
  fds: number;
  mounts: number;
  files: number;
  processes: number;
}

export interface Findings {
  readonly errors: string[];
  /** how often fio read other bytes than it wrote */
  mismatches: number;
  /** a bus was given up: nothing after that is worth looking at */
  hasFailedBus: boolean;
}

/**
 * How much the heaps of three keepers may grow in a run without a leak. A keeper's memory grows from 22 to 32 MB within its
 * first few hundred attaches and stays there, but for a heap that V8 has just doubled.
 */
const HEAP_TOLERANCE_BYTES = 54 << 20;

/** One line for each resource that has grown. */
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
