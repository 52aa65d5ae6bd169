/** Logs the errors of a disk's driver, with their messages. A program that uses the disk gets only their errno. */
import type { TellError } from '../../drivers/filters/with-filters.js';
import { logEvent } from '../runtime/log.js';

/** limits the log lines of a disk that fails again and again */
const INTERVAL_MS = 10_000;

/**
 * Makes the function that logs the errors of one disk: each operation at most once in ten seconds. A line tells how
 * many errors before it were not logged.
 */
export function logDriverErrors(
  { vdev, driver }: { vdev: string; driver: string },
  clock: () => number = () => performance.now(),
): TellError {
  const last = new Map<string, { atMs: number; omitted: number }>();
  return (operation, error) => {
    const before = last.get(operation);
    if (before !== undefined && clock() - before.atMs < INTERVAL_MS) {
      before.omitted += 1;
      return;
    }
    last.set(operation, { atMs: clock(), omitted: 0 });
    const message = error instanceof Error ? error.message : String(error);
    const omitted = before?.omitted ?? 0;
    logEvent({ event: 'driver-error', vdev, driver, operation, message, ...(omitted > 0 && { omitted }) });
  };
}
