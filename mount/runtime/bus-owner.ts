/**
 * Finds the owner of a bus that we did not mount: the kernel gives its user, and its record, if it can be read, gives
 * the processes that serve it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import type { Mount } from '../../system/proc.js';
import { nameOfDirectory } from './bus-place.js';
import type { BusRecord } from './bus-record.js';

/** A bus of another runtime directory, from its record. */
interface FoundBus {
  readonly name: string;
  readonly runtimeDir: string;
  readonly pids: readonly number[];
}

/** The error that refuses to touch a bus that is alive. */
export function refuseLiveBus(path: string, { owner }: Mount): FusetapError {
  const uid = owner?.uid ?? 0;
  const found = findBus(path, uid);
  const pids = found === null ? '' : `, served by pid ${found.pids.join(' and ')}`;
  const user = process.geteuid?.() === uid ? '' : ` as uid ${uid}`;
  const stop =
    found === null
      ? `with its own FUSETAP_RUNTIME_DIR: fusetap stop --bus ${path}`
      : `FUSETAP_RUNTIME_DIR=${found.runtimeDir} fusetap stop --bus ${found.name}`;
  const holders: Holder[] = [{ mount: path }, ...(found?.pids ?? []).map((pid): Holder => ({ pid }))];
  return new FusetapError('BUSY', `a bus of uid ${uid} is alive on ${path}${pids}`, {
    hint: `choose another directory, or end that bus${user}, ${stop}`,
    path,
    holders,
  });
}

/** Looks in the default places of that user's buses, and in the place that the path of a named bus gives. */
function findBus(path: string, uid: number): FoundBus | null {
  const named = basename(dirname(path)) === 'bus' ? [{ name: basename(path), runtimeDir: dirname(dirname(path)) }] : [];
  const usual = uid === 0 ? ['/run/fusetap'] : [`/run/user/${uid}/fusetap`, `/tmp/fusetap-${uid}`];
  const chosen = process.env.FUSETAP_RUNTIME_DIR;
  const name = nameOfDirectory(path);
  const places = [...named, ...[...usual, ...(chosen ? [chosen] : [])].map((runtimeDir) => ({ name, runtimeDir }))];
  for (const place of places) {
    const pids = readPids(join(place.runtimeDir, 'state', place.name), path);
    if (pids.length > 0) return { ...place, pids };
  }
  return null;
}

/** The processes of a record that exist. */
function readPids(stateDir: string, path: string): number[] {
  try {
    const record = JSON.parse(readFileSync(join(stateDir, 'bus.json'), 'utf8')) as BusRecord;
    if (record.path !== path) return [];
    return [record.keeperPid, record.serverPid].flatMap((pid) => (pid && existsSync(`/proc/${pid}`) ? [pid] : []));
  } catch {
    return [];
  }
}
