/**
 * How far a long copy is: told often enough for a person, seldom enough to cost nothing.
 */
export type Progress = (doneBytes: number, totalBytes: number) => void;

const INTERVAL_MS = 100;

/** Passes on the first report, the last, and one each tenth of a second. */
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

/** Passes on each tenth of the way as a percentage, once it has taken longer than a second. */
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

/** Who waits for the copy. */
export interface CopyWatcher {
  /** the client went away */
  readonly signal: AbortSignal;
  readonly progress: (doneBytes: number, totalBytes: number) => void;
}
