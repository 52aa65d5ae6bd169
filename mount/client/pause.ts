/** Pauses and resumes the I/O of a vbd. */
import type { VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { askEither } from './ask.js';

/**
 * Pauses the I/O of a vbd. When this resolves, I/O under way has ended; new I/O waits, without an error.
 * @throws FusetapError BUSY if the vbd uses passthrough and is open
 */
export function pause(place: BusPlace, vdev: string): Promise<VbdInfo> {
  return askEither(place, 'POST /vbds/{vdev}/pause', { vdev });
}

/** Resumes the I/O of a paused vbd. */
export function resume(place: BusPlace, vdev: string): Promise<VbdInfo> {
  return askEither(place, 'POST /vbds/{vdev}/resume', { vdev });
}
