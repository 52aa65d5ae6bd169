/**
 * Reports the progress of a long copy: often enough for a person, seldom enough to cost nothing.
 */
export type Progress = (doneBytes: number, totalBytes: number) => void;

const INTERVAL_MS = 100;

/** Passes on the first report, the last report, and one report each tenth of a second. */
export function atIntervals(report: Progress, clock: () => number = () => performance.now()): Progress {
  let next = 0;
  return (doneBytes, totalBytes) => {
    if (clock() < next && doneBytes < totalBytes) return;
    next = clock() + INTERVAL_MS;
    report(doneBytes, totalBytes);
  };
}

const PATIENCE_MS = 1_000;
const STEP_PERCENT = 10;

/** Passes on each further 10 % as a percentage, if the copy takes longer than a second. */
export function inPercent(report: (percent: number) => void, clock: () => number = () => performance.now()): Progress {
  const begun = clock();
  let told = 0;
  return (doneBytes, totalBytes) => {
    const percent = totalBytes === 0 ? 100 : Math.floor((100 * doneBytes) / totalBytes);
    if (percent < told + STEP_PERCENT || clock() - begun < PATIENCE_MS) return;
    told = percent - (percent % STEP_PERCENT);
    report(percent);
  };
}

/** The client that waits for a copy. */
export interface CopyWatcher {
  /** aborted if the client disconnects before it has its answer */
  readonly signal: AbortSignal;
  readonly progress: (doneBytes: number, totalBytes: number) => void;
  /** the same for a repair of the image; default: `progress` */
  readonly repairProgress?: (doneBytes: number, totalBytes: number) => void;
}
