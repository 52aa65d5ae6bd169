/** Where a vbd differs from its base. */
import type { Change } from '../../drivers/driver.js';
import { call } from '../control/call.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { explainOlderBus } from './follow.js';

export type { Change };

/**
 * The ranges in which a vbd differs from its base, in order. Programs that write meanwhile may change what is listed later.
 * @throws FusetapError UNSUPPORTED if the vbd is no snapshot, or if the bus is older
 */
export async function* changes(place: BusPlace, vdev: string): AsyncGenerator<Change, void> {
  for (let offset: number | null = 0; offset !== null; ) {
    const { changes: found, next } = await ask(place, vdev, offset);
    yield* found;
    if (next !== null && next <= offset) throw new RangeError(`changes from ${offset} on are followed by ${next}`);
    offset = next;
  }
}

async function ask(place: BusPlace, vdev: string, offset: number) {
  try {
    return await call(place, 'GET /vbds/{vdev}/changes', { vdev, query: { offset: String(offset) } });
  } catch (error) {
    throw explainOlderBus(place, error);
  }
}
