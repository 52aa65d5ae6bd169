/**
 * The counters of requests of a bus.
 */
import type { VbdStats } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { askEither, sayIfDead } from './ask.js';

export { KINDS } from '../control/interface.js';

/** The counters of all vbds of a bus since their attach. @throws FusetapError NOT_FOUND if it does not run */
export function askStats(place: BusPlace): Promise<VbdStats[]> {
  return sayIfDead(place, askEither(place, 'GET /stats', {}));
}
