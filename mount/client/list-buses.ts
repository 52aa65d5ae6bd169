/**
 * Lists all buses of a runtime directory, asked in parallel. A bus that cannot be shown must not hide the others, so
 * the result has both buses and troubles.
 */
import { FusetapError } from '../../drivers/errors.js';
import { isNotRunning } from '../control/http-client.js';
import type { BusInfo } from '../control/interface.js';
import { type BusPlace, listBusNames, resolveBus } from '../runtime/bus-place.js';
import { askEither } from './ask.js';
import { explainDeath } from './troubles/dead-bus.js';

/** a bus that does not answer must not delay the list */
const LIMIT_MS = 5_000;

export interface BusListing {
  /** the buses that answered, ordered by name */
  buses: BusInfo[];
  /** one for each bus that is dead or did not answer */
  troubles: BusTrouble[];
}

export interface BusTrouble {
  /** the name of the bus */
  bus: string;
  /** its mount; null if not known */
  path: string | null;
  /** `dead`: its processes are gone, but its mount is not */
  state: 'dead' | 'not-answering';
  error: FusetapError;
}

export async function listBuses(runtimeDir: string): Promise<BusListing> {
  const looks = await Promise.all(listBusNames(runtimeDir).map((name) => lookAt(name, runtimeDir)));
  return { buses: looks.flatMap(({ info }) => info ?? []), troubles: looks.flatMap(({ trouble }) => trouble ?? []) };
}

/** The result for one name; empty if there are only the remains of a bus that has ended. */
interface Look {
  info?: BusInfo;
  trouble?: BusTrouble;
}

async function lookAt(name: string, runtimeDir: string): Promise<Look> {
  let place: BusPlace | null = null;
  try {
    place = await resolveBus(name, runtimeDir);
    return await askOrExamine(place);
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    // NOT_FOUND: its directory is gone, or was never recorded
    if (error.code === 'NOT_FOUND') return {};
    return { trouble: { bus: name, path: place?.path ?? null, state: 'not-answering', error } };
  }
}

async function askOrExamine(place: BusPlace): Promise<Look> {
  try {
    return { info: await askEither(place, 'GET /bus', { timeoutMs: LIMIT_MS }) };
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    const { explainSilence } = await import('./troubles/silent-bus.js');
    const silence = await explainSilence(place, error);
    if (silence !== null) return troubleOf(place, 'not-answering', silence);
    const death = await explainDeath(place, error);
    return death === null ? {} : troubleOf(place, 'dead', death);
  }
}

function troubleOf({ name, path }: BusPlace, state: BusTrouble['state'], error: FusetapError): Look {
  return { trouble: { bus: name, path, state, error } };
}
