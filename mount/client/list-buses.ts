/**
 * Lists all buses of a runtime directory, asked in parallel. A bus that cannot be shown must not hide the others, so
 * the result has both buses and troubles.
 */
import { FusetapError } from '../../drivers/errors.js';
import { until } from '../../system/until.js';
import { isNotRunning } from '../control/http-client.js';
import type { BusInfo } from '../control/interface.js';
import { type BusPlace, listBusNames, resolveBus } from '../runtime/bus-place.js';
import { showBus } from './ask.js';

/** a bus that does not answer must not delay the list */
const LIMIT_MS = 5_000;

/** how long a mount without a keeper may take to go away */
const LEAVING_MS = 1_000;

export interface BusListing {
  /** the buses that answered, ordered by name */
  buses: BusInfo[];
  /** one for each bus that is dead or did not answer */
  troubles: BusTrouble[];
}

export interface BusTrouble {
  /** the name of the bus */
  bus: string;
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
  try {
    const place = await resolveBus(name, runtimeDir);
    return await askOrExamine(place);
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    // NOT_FOUND: its directory is gone, or was never recorded
    return error.code === 'NOT_FOUND' ? {} : { trouble: { bus: name, error } };
  }
}

async function askOrExamine(place: BusPlace): Promise<Look> {
  try {
    return { info: await showBus(place, { timeoutMs: LIMIT_MS }) };
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    const { explainSilence } = await import('./silent-bus.js');
    const silence = await explainSilence(place, error);
    if (silence !== null) return { trouble: { bus: place.name, error: silence } };
    return (await isDeadMount(place)) ? { trouble: { bus: place.name, error: deadBus(place) } } : {};
  }
}

function deadBus({ name, path }: BusPlace): FusetapError {
  return new FusetapError('FAILED', `bus ${name} is dead, its processes are gone but its mount is not: ${path}`, {
    hint: `fusetap stop --bus ${name} removes it, fusetap attach repairs it`,
  });
}

async function isDeadMount(place: BusPlace): Promise<boolean> {
  return !(await until(async () => !(await isMountpoint(place.path)), { timeoutMs: LEAVING_MS, everyMs: 50 }));
}

async function isMountpoint(path: string): Promise<boolean> {
  const { mountOn } = await import('../../system/proc.js');
  return (await mountOn(path)) !== undefined;
}
