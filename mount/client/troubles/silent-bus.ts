/**
 * Explains a bus that does not listen although its processes live: it is ending, or somebody has removed its socket,
 * which it creates again within a second or two.
 */
import { join } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { readBusRecord } from '../../runtime/bus-record.js';
import { isKeeperAlive } from '../../runtime/watch-bus-lock.js';

/** @returns the error to throw; null if no process of the bus lives */
export async function explainSilence(place: BusPlace, cause: unknown): Promise<FusetapError | null> {
  if (!(await isKeeperAlive(place))) return null;
  const record = readBusRecord(place.stateDir);
  const keeper = record?.keeperPid ?? null;
  const server = record?.serverPid ?? null;
  const who = [keeper === null ? [] : [`keeper ${keeper}`], server === null ? [] : [`server ${server}`]].flat();
  const processes = who.length === 0 ? '' : ` (${who.join(', ')})`;
  const pid = keeper ?? server;
  return new FusetapError(
    'NOT_FOUND',
    `bus ${place.name} does not listen, but its processes live${processes}: it is ending, or somebody removed its socket`,
    {
      hint:
        `it creates ${join(place.stateDir, 'control.sock')} again, if it can: try again` +
        (pid === null ? '' : `, or end it: kill ${pid}`),
      operation: 'connect',
      path: place.path,
      cause,
    },
  );
}
