/** Writes the progress of a long copy or repair to the log. */
import { type CopyWatcher, inPercent, type Progress } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';

/** @returns a watcher that reports to the client's watcher and to the log, by default as `copying` */
export function logCopy(
  image: string | null,
  { signal, progress }: CopyWatcher,
  work: 'copying' | 'committing' = 'copying',
): CopyWatcher {
  const logged = (event: 'copying' | 'committing' | 'repairing'): Progress => {
    const toLog = inPercent((percent) => logEvent({ event, image, percent }));
    return (doneBytes, totalBytes) => {
      toLog(doneBytes, totalBytes);
      progress(doneBytes, totalBytes);
    };
  };
  return { signal, progress: logged(work), repairProgress: logged('repairing') };
}
