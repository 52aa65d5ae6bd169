/**
 * Replaces the server of a running bus by the installed version.
 */
import { call } from '../control/call.js';
import type { UpgradeResult } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** Replaces the server of a bus. Requests wait, none is lost. @throws FusetapError NOT_FOUND, FAILED */
export function upgrade(place: BusPlace): Promise<UpgradeResult> {
  return call(place, 'POST /upgrade', {});
}
