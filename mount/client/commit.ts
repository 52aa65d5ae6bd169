/** Moves what a vbd has over its base into the base. */
import { call } from '../control/call.js';
import type { CommitResult } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { explainOlderBus } from './follow.js';
import type { CopyOptions } from './ram.js';

export type { CommitResult };

/**
 * Moves what a vbd has over its base into the base, durable. Programs that have the vbd open go on. If it fails or is
 * cancelled, the vbd is as before; what was moved stays in the base.
 * @throws FusetapError UNSUPPORTED if it has no base that can be written, or if the bus is older; USAGE if it is not
 *   attached with mode w, or is paused; BUSY if somebody else uses the base; NO_SPACE
 */
export async function commit(place: BusPlace, vdev: string, options: CopyOptions = {}): Promise<CommitResult> {
  try {
    return await call(place, 'POST /vbds/{vdev}/commit', { vdev, ...options });
  } catch (error) {
    throw explainOlderBus(place, error);
  }
}
