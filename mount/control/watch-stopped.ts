/** Notices that the process which has to answer is stopped (SIGSTOP, a debugger), so that its client need not guess. */
import type { BusPlace } from '../runtime/bus-place.js';

const LOOK_MS = 1_000;

/**
 * Looks once a second; a process that is stopped twice in a row counts.
 * @param stopped called once, with its pid
 */
export function watchStopped(
  { stateDir }: BusPlace,
  which: 'keeperPid' | 'serverPid',
  stopped: (pid: number) => void,
): { end(): void } {
  let before: number | null = null;
  const timer = setInterval(async () => {
    const { readBusRecord } = await import('../runtime/bus-record.js');
    const { isStopped } = await import('../../system/proc.js');
    const pid = readBusRecord(stateDir)?.[which] ?? null;
    const now = pid !== null && isStopped(pid) ? pid : null;
    if (now !== null && now === before) {
      clearInterval(timer);
      stopped(now);
    }
    before = now;
  }, LOOK_MS);
  return { end: () => clearInterval(timer) };
}
