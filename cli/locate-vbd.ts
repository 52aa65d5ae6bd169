/**
 * Finds the vbd that an argument names, and its bus: on the chosen bus; for a path, on all other buses too, unless a
 * bus was named.
 */
import { FusetapError } from '../drivers/errors.js';
import { type BusPlace, findVbd, isPath, listBuses, resolveBus, showBus } from '../mount/client/index.js';
import type { VbdInfo } from '../mount/control/interface.js';
import { callersRuntimeDir, chosenBus, type SharedOptions } from './options.js';

export interface LocatedVbd {
  place: BusPlace;
  vbd: VbdInfo;
}

/** @throws FusetapError NOT_FOUND; USAGE for the image of several vbds */
export async function locateVbd(word: string, options: SharedOptions): Promise<LocatedVbd> {
  const place = await chosenBus(options);
  try {
    return { place, vbd: findVbd(word, (await showBus(place)).vbds, `bus ${place.name}`) };
  } catch (error) {
    const elsewhere = isPath(word) && options.bus === undefined;
    if (!elsewhere || !(error instanceof FusetapError && error.code === 'NOT_FOUND')) throw error;
  }
  const { buses } = await listBuses(callersRuntimeDir());
  const vbd = findVbd(
    word,
    buses.flatMap((bus) => bus.vbds),
    'any bus',
  );
  return { place: await resolveBus(vbd.bus, callersRuntimeDir()), vbd };
}
