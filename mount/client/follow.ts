/**
 * Lets a vbd follow its image: the size of one that has grown, and the partition table. A bus of an older version cannot
 * do that.
 */
import { FusetapError } from '../../drivers/errors.js';
import { call } from '../control/call.js';
import type { AttachResult, VbdInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';

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

/** @returns the error for the user; the same error if it has another cause */
export function explainOlderBus({ name }: BusPlace, error: unknown): unknown {
  const isUnknown = error instanceof FusetapError && error.code === 'NOT_FOUND' && /^a vbd has no /.test(error.message);
  return isUnknown ? olderBus(name) : error;
}

export function olderBus(name: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `bus ${name} was started by an older fusetap, which cannot do this`, {
    hint: 'stop the bus and start it again',
  });
}
