/**
 * The logs of buses that have ended: `ended/NAME/log` and `log.1` in the runtime directory. The last ones are kept, so
 * that somebody who comes too late can still read what happened.
 */
import { mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { type BusPlace, isBusName } from './bus-place.js';

/** `fusetap run` and `fusetap mount` use a new name each time */
const KEPT = 20;

/** The directory with the log of the last run of a bus. It need not exist. */
export function endedLogDir({ runtimeDir, name }: Pick<BusPlace, 'runtimeDir' | 'name'>): string {
  return join(runtimeDir, 'ended', name);
}

/** The names of the buses whose logs are kept. */
export function listEndedLogs(runtimeDir: string): string[] {
  try {
    return readdirSync(join(runtimeDir, 'ended')).filter(isBusName).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Moves the log of a bus that ends. It stays the same file: a process that still writes to it does so there. */
export function keepEndedLog(place: BusPlace): void {
  const to = endedLogDir(place);
  try {
    rmSync(to, { recursive: true, force: true });
    mkdirSync(to, { recursive: true, mode: 0o700 });
    for (const name of ['log.1', 'log']) moveIfThere(join(place.stateDir, name), join(to, name));
    removeOld(join(place.runtimeDir, 'ended'));
  } catch (error) {
    console.error('the log is not kept:', error);
  }
}

function moveIfThere(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
}

function removeOld(directory: string): void {
  const entries = readdirSync(directory).map((name) => {
    const path = join(directory, name);
    // another bus may have removed it meanwhile
    return { path, endedMs: statSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 };
  });
  entries.sort((a, b) => b.endedMs - a.endedMs);
  for (const { path } of entries.slice(KEPT)) rmSync(path, { recursive: true, force: true });
}
