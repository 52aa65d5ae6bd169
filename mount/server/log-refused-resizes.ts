/** Logs that a program was refused another size for a vbd. The program itself gets only EPERM. */
import { logEvent } from '../runtime/log.js';

/** limits the log lines of a program that tries again and again */
const INTERVAL_MS = 10_000;

/** Makes the function that logs a refusal, at most once in ten seconds for each vbd. */
export function logRefusedResizes(): (vdev: string, size: number) => void {
  const loggedAtMs = new Map<string, number>();
  return (vdev, size) => {
    const nowMs = performance.now();
    if (nowMs - (loggedAtMs.get(vdev) ?? Number.NEGATIVE_INFINITY) < INTERVAL_MS) return;
    loggedAtMs.set(vdev, nowMs);
    logEvent({ event: 'resize-refused', vdev, sizeBytes: size });
  };
}
