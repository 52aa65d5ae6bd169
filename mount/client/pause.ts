/** Holding the I/O of a vbd, and letting it go on. */
import type { VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { askEither } from './ask.js';

/**
 * Holds the I/O of a vbd: what is under way has ended when this resolves, what comes waits without an error.
 * @throws FusetapError BUSY where the vbd is passed through and somebody has it open
 */
export function pause(place: BusPlace, vdev: string): Promise<VbdInfo> {
  return askEither(place, 'POST /vbds/{vdev}/pause', { vdev });
}

/** Lets the I/O of a paused vbd go on. */
export function resume(place: BusPlace, vdev: string): Promise<VbdInfo> {
  return askEither(place, 'POST /vbds/{vdev}/resume', { vdev });
}
