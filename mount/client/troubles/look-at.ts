/**
 * Asks a bus of a runtime directory, of which only the name is known, and which may be dead, about to end, or silent. A
 * bus that cannot be asked must not hide the others, so its trouble is a result, not an error.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { isNotRunning } from '../../control/http-client.js';
import { type BusPlace, resolveBus } from '../../runtime/bus-place.js';
import { explainDeath } from './dead-bus.js';

export interface BusTrouble {
  /** the name of the bus */
  bus: string;
  /** its mount; null if not known */
  path: string | null;
  /** `dead`: its processes are gone, but its mount is not */
  state: 'dead' | 'not-answering';
  error: FusetapError;
}

/** The result for one name; empty if there are only the remains of a bus that has ended. */
export interface Look<Info> {
  info?: Info;
  trouble?: BusTrouble;
}

/** Asks the bus of that name. Rejects only for errors that are not of the bus. */
export async function lookAt<Info>(
  name: string,
  runtimeDir: string,
  ask: (place: BusPlace) => Promise<Info>,
): Promise<Look<Info>> {
  let place: BusPlace | null = null;
  try {
    place = await resolveBus(name, runtimeDir);
    return await askOrExamine(place, ask);
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    // NOT_FOUND: its directory is gone, or was never recorded
    if (error.code === 'NOT_FOUND') return {};
    return { trouble: { bus: name, path: place?.path ?? null, state: 'not-answering', error } };
  }
}

async function askOrExamine<Info>(place: BusPlace, ask: (place: BusPlace) => Promise<Info>): Promise<Look<Info>> {
  try {
    return { info: await ask(place) };
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    const { explainSilence } = await import('./silent-bus.js');
    const silence = await explainSilence(place, error);
    if (silence !== null) return { trouble: troubleOf(place, 'not-answering', silence) };
    const death = await explainDeath(place, error);
    return death === null ? {} : { trouble: troubleOf(place, 'dead', death) };
  }
}

function troubleOf({ name, path }: BusPlace, state: BusTrouble['state'], error: FusetapError): BusTrouble {
  return { bus: name, path, state, error };
}
