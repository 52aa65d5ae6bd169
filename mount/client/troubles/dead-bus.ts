/** Explains a bus whose processes are gone but whose mount is not: each use of its files fails with ENOTCONN. */
import { FusetapError } from '../../../drivers/errors.js';
import { until } from '../../../system/until.js';
import type { BusPlace } from '../../runtime/bus-place.js';

/** how long a mount without a keeper may take to go away */
const LEAVING_MS = 1_000;

/**
 * To be called if nobody listens on the socket of the bus.
 * @returns the error to throw; null if the bus has just ended, never ran, or a process of it lives
 */
export async function explainDeath(place: BusPlace, cause: unknown): Promise<FusetapError | null> {
  const { name, path } = place;
  if (!(await isMountPoint(path))) return null;
  const { isKeeperAlive } = await import('../../runtime/watch-bus-lock.js');
  if (await isKeeperAlive(place)) return null;
  const isLeaving = await until(async () => !(await isMountPoint(path)), { timeoutMs: LEAVING_MS, everyMs: 50 });
  // an attach may have begun to repair it meanwhile
  if (isLeaving || (await isKeeperAlive(place))) return null;
  return new FusetapError('NOT_FOUND', `bus ${name} is dead, its processes are gone but its mount is not: ${path}`, {
    hint: `fusetap stop --bus ${name} removes it, fusetap attach repairs it`,
    operation: 'connect',
    path,
    cause,
  });
}

async function isMountPoint(path: string): Promise<boolean> {
  const { mountOn } = await import('../../../system/proc.js');
  return (await mountOn(path)) !== undefined;
}
