/** Work of a command that a signal cancels. */
import { statusOfSignal } from './run-command.js';
import { catchSignals } from './signals.js';

/** Runs work that a signal cancels. @returns null if one did; the exit status is set then */
export async function untilSignal<Result>(work: (signal: AbortSignal) => Promise<Result>): Promise<Result | null> {
  const signals = catchSignals();
  try {
    return await work(signals.aborted);
  } catch (error) {
    const signal = signals.first();
    if (signal === undefined || (error as Error).name !== 'AbortError') throw error;
    process.exitCode = statusOfSignal(signal);
    return null;
  } finally {
    signals.release();
  }
}
