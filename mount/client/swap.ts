/** Gives a vbd another image. */
import { call } from '../control/call.js';
import type { SwapRequest, VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { CopyOptions } from './ram.js';

/**
 * Gives a vbd another image of the same size. Programs that have the vbd open go on with the new image. All or nothing.
 * @throws FusetapError USAGE if the vbd is not paused and `pause` is not set, or if the size differs; and as an attach
 *   of
 *   the image
 */
export function swap(place: BusPlace, vdev: string, request: SwapRequest, options: CopyOptions = {}): Promise<VbdInfo> {
  return call(place, 'POST /vbds/{vdev}/swap', { vdev, body: request, ...options });
}
