/**
 * The code that is installed now, put under a bus that runs.
 */
import { call } from '../control/call.js';
import type { UpgradeResult } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** Replaces the server of a bus. No request is lost, they wait. @throws FusetapError NOT_FOUND, FAILED */
export function upgrade(place: BusPlace): Promise<UpgradeResult> {
  return call(place, 'POST /upgrade', {});
}
