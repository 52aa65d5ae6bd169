/** Writes the progress of a long copy or repair to the log. */
import { type CopyWatcher, inPercent, type Progress } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';

/** @returns a watcher that reports to the client's watcher and to the log */
export function logCopy(image: string | null, { signal, progress }: CopyWatcher): CopyWatcher {
  const logged = (event: 'copying' | 'repairing'): Progress => {
    const toLog = inPercent((percent) => logEvent({ event, image, percent }));
    return (doneBytes, totalBytes) => {
      toLog(doneBytes, totalBytes);
      progress(doneBytes, totalBytes);
    };
  };
  return { signal, progress: logged('copying'), repairProgress: logged('repairing') };
}
