/** The log tells how far a long copy is. */
import { type CopyWatcher, inPercent } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';

/** Watches a copy for its client, and for the log. */
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
