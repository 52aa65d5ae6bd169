/**
 * The code that is installed now, put under a bus that runs.
 */
import { askBus } from '../bus/http-client.js';
import type { UpgradeResult } from '../bus/interface.js';
import type { BusPlace } from '../bus/runtime-dir.js';

/** Replaces the server of a bus. No request is lost, they wait. @throws FusetapError NOT_FOUND, FAILED */
export function upgrade(place: BusPlace): Promise<UpgradeResult> {
  return askBus<UpgradeResult>(place, { method: 'POST', path: '/upgrade', body: {} });
}
