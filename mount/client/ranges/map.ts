/** What the disk of a vbd is, range by range. */
import { allExtents, type MapExtent } from '../../../drivers/map/map-extents.js';
import { call } from '../../control/call.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { explainOlderBus } from '../follow.js';

export type { MapExtent };

/**
 * The extents of a vbd, in order and without gaps. Programs that write meanwhile may change what is told later.
 * @throws FusetapError UNSUPPORTED if the bus is older
 */
export function map(place: BusPlace, vdev: string, signal?: AbortSignal): AsyncGenerator<MapExtent, void> {
  return allExtents(async (offset) => {
    try {
      return await call(place, 'GET /vbds/{vdev}/map', { vdev, query: { offset: String(offset) }, signal });
    } catch (error) {
      throw explainOlderBus(place, error);
    }
  });
}
