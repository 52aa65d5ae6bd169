/**
 * Reports data that is not durable when no client waits for the result: after an ending by a signal, as at shutdown, and
 * after the detach of a vbd that nobody used any more. It is written to the log of the bus, which is then kept, and to the
 * system log.
 */
import { execFile } from 'node:child_process';
import type { DetachedVbd } from '../control/interface.js';
import { logEvent } from '../runtime/log.js';

/** how long logger(1) may take: it may wait for a syslog daemon that is gone already */
const LIMIT_MS = 3_000;

/** @param lost the vbds whose data may not all be durable */
export async function tellAdministrator(lost: readonly DetachedVbd[]): Promise<void> {
  for (const { bus, vdev, image, error } of lost) {
    logEvent({ event: 'not-durable', bus, vdev, image, reason: error?.message ?? '' });
    const text = `not all of ${vdev} of bus ${bus} (${image ?? 'no image'}) is durable: ${error?.message}`;
    await logToSystem(text);
  }
}

function logToSystem(text: string): Promise<void> {
  return new Promise((resolve) => {
    const options = { timeout: LIMIT_MS, killSignal: 'SIGKILL' as const };
    execFile('logger', ['-t', 'fusetap', '-p', 'daemon.err', '--', text], options, () => resolve());
  });
}
