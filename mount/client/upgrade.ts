/**
 * Replaces the server of a running bus by the installed version.
 */
import { fileURLToPath } from 'node:url';
import { call } from '../control/call.js';
import type { UpgradeResult } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { sayIfDead } from './ask.js';

/** The server of this installation, whichever installation has started the bus. */
export const SERVER_PROGRAM = fileURLToPath(new URL('../server/main.cjs', import.meta.url));

/**
 * Replaces the server of a bus by one of this installation; the keeper of an older bus starts its own instead, and its
 * result has no `program`. Requests wait, none is lost.
 * @throws FusetapError NOT_FOUND, FAILED
 */
export function upgrade(place: BusPlace): Promise<UpgradeResult> {
  return sayIfDead(place, call(place, 'POST /upgrade', { body: { program: SERVER_PROGRAM } }));
}
