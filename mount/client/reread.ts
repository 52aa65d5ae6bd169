/** Reads the partition table of a vbd again. */
import { call } from '../control/call.js';
import type { AttachResult } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { explainOlderBus } from './older-bus.js';

/**
 * Reads the partition table of a vbd again, and shows the partitions that it has now.
 * @throws FusetapError BUSY with the holders if a partition that has changed or is gone is in use; UNSUPPORTED if the
 *   bus is older
 */
export async function reread(place: BusPlace, vdev: string): Promise<AttachResult> {
  try {
    return await call(place, 'POST /vbds/{vdev}/reread', { vdev });
  } catch (error) {
    throw explainOlderBus(place, error);
  }
}
