/** The log line of a program that was refused another size for a vbd: it saw no more than EPERM. */
import { logEvent } from '../runtime/log.js';

/** a program that tries again and again is told of once in a while */
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
