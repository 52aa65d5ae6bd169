/**
 * Lists all buses of a runtime directory, asked in parallel. A bus that cannot be shown must not hide the others, so
 * the result has both buses and troubles.
 */
import type { BusInfo } from '../control/interface.js';
import { type BusPlace, listBusNames } from '../runtime/bus-place.js';
import { askEither } from './ask.js';
import { type BusTrouble, lookAt } from './troubles/look-at.js';

export type { BusTrouble } from './troubles/look-at.js';

/** a bus that does not answer must not delay the list */
const LIMIT_MS = 5_000;

export interface BusListing {
  /** the buses that answered, ordered by name */
  buses: BusInfo[];
  /** one for each bus that is dead or did not answer */
  troubles: BusTrouble[];
}

export async function listBuses(runtimeDir: string): Promise<BusListing> {
  const names = listBusNames(runtimeDir);
  const looks = await Promise.all(names.map((name) => lookAt(name, runtimeDir, ask)));
  return { buses: looks.flatMap(({ info }) => info ?? []), troubles: looks.flatMap(({ trouble }) => trouble ?? []) };
}

function ask(place: BusPlace): Promise<BusInfo> {
  return askEither(place, 'GET /bus', { timeoutMs: LIMIT_MS });
}
