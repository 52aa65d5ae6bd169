/** Gives a vbd another image. */
import { call } from '../control/call.js';
import { sentDisk } from '../control/disk-wish.js';
import type { AttachResult, SwapRequest } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { withFoundDrivers } from './disk-wish.js';
import { workingDirectory } from './finding/working-directory.js';
import type { CopyOptions } from './ram.js';

/**
 * Gives a vbd another image of the same size. Programs that have the vbd open go on with the new image. If it fails,
 * nothing has changed.
 * @param request its driver may be the path of a file, or the name of a package (see client/find-driver.ts)
 * @throws FusetapError USAGE if the vbd is not paused and `pause` is not set, or if the size differs; also the errors
 *   of an attach of the image
 */
export async function swap(
  place: BusPlace,
  vdev: string,
  request: SwapRequest,
  options: CopyOptions = {},
): Promise<AttachResult> {
  const body = sentDisk(withFoundDrivers(request, workingDirectory));
  return await call(place, 'POST /vbds/{vdev}/swap', { vdev, body, ...options });
}
