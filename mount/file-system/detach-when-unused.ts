/** Marks a vbd: its bus detaches it when nobody uses it any more. */
import { FusetapError } from '../../drivers/errors.js';
import { call } from '../control/call.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** @returns whether it is marked; false if the bus is of an older version, which has no such marks */
export async function detachWhenUnused(place: BusPlace, vdev: string): Promise<boolean> {
  try {
    await call(place, 'POST /vbds/{vdev}/detach-when-unused', { vdev });
    return true;
  } catch (error) {
    if (error instanceof FusetapError && error.code === 'NOT_FOUND') return false;
    throw error;
  }
}
