/** Writes the progress of a long copy to the log. */
import { type CopyWatcher, inPercent } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';

/** @returns a watcher that reports to the client's watcher and to the log */
export function logCopy(image: string | null, { signal, progress }: CopyWatcher): CopyWatcher {
  const toLog = inPercent((percent) => logEvent({ event: 'copying', image, percent }));
  return {
    signal,
    progress: (doneBytes, totalBytes) => {
      toLog(doneBytes, totalBytes);
      progress(doneBytes, totalBytes);
    },
  };
}
