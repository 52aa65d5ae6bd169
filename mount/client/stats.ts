/**
 * What requests did, of one bus.
 */
import { askBus } from '../bus/http-client.js';
import type { VbdStats } from '../bus/interface.js';
import type { BusPlace } from '../bus/runtime-dir.js';

/** The counters of all vbds of a bus since their attach. @throws FusetapError NOT_FOUND where it does not run */
export function askStats(place: BusPlace): Promise<VbdStats[]> {
  return askBus<VbdStats[]>(place, { method: 'GET', path: '/stats' });
}
