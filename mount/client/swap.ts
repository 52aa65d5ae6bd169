/** Another image under a vbd that is paused. */
import { call } from '../control/call.js';
import type { SwapRequest, VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';

/**
 * Gives a paused vbd another image of the same size; those who have it open go on with that one. All or nothing.
 * @throws FusetapError USAGE where the vbd is not paused or the size is another; what an attach of the image throws
 */
export function swap(place: BusPlace, vdev: string, request: SwapRequest): Promise<VbdInfo> {
  return call(place, 'POST /vbds/{vdev}/swap', { vdev, body: request });
}
