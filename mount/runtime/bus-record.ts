/**
 * bus.json: who runs a bus and what it has attached, for those that cannot ask (a keeper that finds an image claimed by
 * another pid, a person with `cat`). The control socket is the truth; this is rewritten with each change.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { listBusNames } from './bus-place.js';
import { replaceFile } from './replace-file.js';

export interface BusRecord {
  readonly bus: string;
  readonly path: string;
  readonly interface: string;
  /** null if it died */
  readonly keeperPid: number | null;
  readonly serverPid: number | null;
  readonly vbds: readonly {
    readonly vdev: string;
    readonly driver: string;
    readonly mode: string;
    readonly image: string | null;
    /** of the image, where the vbd holds it; see identityOf */
    readonly identity: string | null;
    /** of the ram image, as in ram/ */
    readonly memory?: string | null;
    readonly paused?: boolean;
  }[];
}

/** Replaces the record in one step. */
export function writeBusRecord(stateDir: string, record: BusRecord): void {
  replaceFile(join(stateDir, 'bus.json'), `${JSON.stringify(record)}\n`);
}

/** All records below a runtime directory; what cannot be read is left out. */
export function readBusRecords(runtimeDir: string): BusRecord[] {
  return namesIn(runtimeDir).flatMap((name) => readBusRecord(join(runtimeDir, 'state', name)) ?? []);
}

/** The record of a bus; null if there is none that can be read: a bus that is starting or ending has none. */
export function readBusRecord(stateDir: string): BusRecord | null {
  try {
    return JSON.parse(readFileSync(join(stateDir, 'bus.json'), 'utf8')) as BusRecord;
  } catch {
    return null;
  }
}

function namesIn(runtimeDir: string): string[] {
  try {
    return listBusNames(runtimeDir);
  } catch {
    return [];
  }
}

/** The bus that a process is keeper or server of, and the vbd by which it holds an image; null for other processes. */
export function findBusOfPid(
  runtimeDir: string,
  pid: number,
  identity: string,
): { bus: string; vdev?: string | undefined } | null {
  const record = readBusRecords(runtimeDir).find(({ keeperPid, serverPid }) => pid === keeperPid || pid === serverPid);
  if (record === undefined) return null;
  return { bus: record.bus, vdev: record.vbds.find((vbd) => vbd.identity === identity)?.vdev };
}

/** The vbd by which a keeper or server holds an image, or null if the pid is none of ours. */
export function findVbdOfPid(runtimeDir: string, pid: number, identity: string): { bus: string; vdev: string } | null {
  for (const { bus, keeperPid, serverPid, vbds } of readBusRecords(runtimeDir)) {
    if (pid !== keeperPid && pid !== serverPid) continue;
    const vbd = vbds.find((candidate) => candidate.identity === identity);
    if (vbd !== undefined) return { bus, vdev: vbd.vdev };
  }
  return null;
}
