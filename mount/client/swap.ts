/** Gives a vbd another image. */
import { call } from '../control/call.js';
import { sentDisk } from '../control/disk-wish.js';
import type { SwapRequest, VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { CopyOptions } from './ram.js';

/**
 * Gives a vbd another image of the same size. Programs that have the vbd open go on with the new image. If it fails,
 * nothing has changed.
 * @throws FusetapError USAGE if the vbd is not paused and `pause` is not set, or if the size differs; also the errors
 *   of an attach of the image
 */
export function swap(place: BusPlace, vdev: string, request: SwapRequest, options: CopyOptions = {}): Promise<VbdInfo> {
  return call(place, 'POST /vbds/{vdev}/swap', { vdev, body: sentDisk(request), ...options });
}
