/** Checks the runtime directory, and finds the files and mounts of dead buses. */
import { accessSync, constants, lstatSync } from 'node:fs';
import { dirname } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { readMounts } from '../../system/proc.js';
import { type BusPlace, listBusNames, resolveBus, runtimeDir } from '../runtime/bus-place.js';
import { isKeeperAlive } from '../runtime/watch-bus-lock.js';
import { type Check, type Finding, fine, lacking } from './check.js';

/** Whether the runtime directory is ours and no other user can write to it. */
export function lookAtRuntimeDir(env: NodeJS.ProcessEnv, uid: number): Finding {
  let path: string;
  try {
    path = runtimeDir(env, uid);
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    return lacking(error.message, error.hint ?? null);
  }
  const hint = 'set FUSETAP_RUNTIME_DIR to a directory that only you can write';
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return lookAtParent(path, hint);
  if (!stats.isDirectory()) return lacking(`${path} is not a directory`, hint);
  if (stats.uid !== uid) return lacking(`${path} belongs to uid ${stats.uid}, we are ${uid}`, hint);
  const mode = (stats.mode & 0o7777).toString(8);
  if ((stats.mode & 0o022) !== 0) return lacking(`others can write ${path} (mode ${mode})`, `chmod go-w ${path}`);
  return fine(`${path}, mode ${mode}`);
}

function lookAtParent(path: string, hint: string): Finding {
  let parent = dirname(path);
  while (lstatSync(parent, { throwIfNoEntry: false }) === undefined) parent = dirname(parent);
  try {
    accessSync(parent, constants.W_OK | constants.X_OK);
    return fine(`${path} will be made`);
  } catch {
    return lacking(`${path} cannot be made: ${parent} is not writable`, hint);
  }
}

/** A check for each dead bus whose files or mount were left. */
export async function findDeadBuses(runtime: string): Promise<Check[]> {
  const mountpoints = new Set((await readMounts('self')).map(({ mountpoint }) => mountpoint));
  const checks: Check[] = [];
  for (const name of listBusNames(runtime)) {
    const place = await resolveBus(name, runtime).catch(() => null);
    if (place === null || (await isKeeperAlive(place))) continue;
    checks.push(deadBus(place, mountpoints.has(place.path)));
  }
  return checks;
}

function deadBus({ name, path, stateDir }: BusPlace, isMounted: boolean): Check {
  const left = isMounted ? `its mount is still there: ${path}` : `its files are still there: ${stateDir}`;
  const finding = lacking(`bus ${name} is dead, ${left}`, `fusetap stop --bus ${name}`);
  return { name: `bus ${name}`, needed: false, look: () => finding };
}
