/** Gives a vbd the size of its image. */
import { call } from '../control/call.js';
import type { VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { explainOlderBus } from './older-bus.js';

/**
 * Gives a vbd the size that its image has now.
 * @throws FusetapError USAGE if it would become smaller; UNSUPPORTED for a ram vbd, and if the bus is older
 */
export async function resize(place: BusPlace, vdev: string): Promise<VbdInfo> {
  try {
    return await call(place, 'POST /vbds/{vdev}/resize', { vdev });
  } catch (error) {
    throw explainOlderBus(place, error);
  }
}
