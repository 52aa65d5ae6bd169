/**
 * bus.json: the processes of a bus and its vbds. It is for readers that cannot ask the bus (a keeper that finds an
 * image claimed by another pid, a person with `cat`). It is rewritten with each change; the control socket always has
 * the current state.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeSpec } from '../../drivers/graph.js';
import { listBusNames } from './bus-place.js';
import { replaceFile } from './replace-file.js';

export interface BusRecord {
  readonly bus: string;
  readonly path: string;
  readonly interface: string;
  /** null if the keeper died */
  readonly keeperPid: number | null;
  readonly serverPid: number | null;
  readonly vbds: readonly {
    readonly vdev: string;
    readonly driver: string;
    readonly mode: string;
    readonly image: string | null;
    /** of the image, if the vbd has it open; see identityOf */
    readonly identity: string | null;
    /** of all files that the vbd has open, if there are others than its image */
    readonly identities?: readonly string[];
    /** the tree of its disk, if it is more than a driver over an image */
    readonly disk?: NodeSpec;
    /** the id of the ram image, as in ram/ */
    readonly memory?: string | null;
    /** the ids of ram images below it in the tree; omitted if there are none */
    readonly memoriesBelow?: readonly string[];
    readonly paused?: boolean;
  }[];
}

/** Replaces the record in one step. */
export function writeBusRecord(stateDir: string, record: BusRecord): void {
  replaceFile(join(stateDir, 'bus.json'), `${JSON.stringify(record)}\n`);
}

/** All records below a runtime directory; records that cannot be read are left out. */
export function readBusRecords(runtimeDir: string): BusRecord[] {
  return namesIn(runtimeDir).flatMap((name) => readBusRecord(join(runtimeDir, 'state', name)) ?? []);
}

/** The record of a bus; null if it cannot be read: a bus that is starting or ending has none. */
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

/** The bus of which a process is keeper or server, and its vbd of an image; null for other processes. */
export function findBusOfPid(
  runtimeDir: string,
  pid: number,
  identity: string,
): { bus: string; vdev?: string | undefined } | null {
  const record = readBusRecords(runtimeDir).find(({ keeperPid, serverPid }) => pid === keeperPid || pid === serverPid);
  if (record === undefined) return null;
  return { bus: record.bus, vdev: record.vbds.find((vbd) => uses(vbd, identity))?.vdev };
}

/** The vbd by which a keeper or server uses an image; null if there is none, or for other processes. */
export function findVbdOfPid(runtimeDir: string, pid: number, identity: string): { bus: string; vdev: string } | null {
  for (const { bus, keeperPid, serverPid, vbds } of readBusRecords(runtimeDir)) {
    if (pid !== keeperPid && pid !== serverPid) continue;
    const vbd = vbds.find((candidate) => uses(candidate, identity));
    if (vbd !== undefined) return { bus, vdev: vbd.vdev };
  }
  return null;
}

/** Whether a vbd of a record has a file open. */
export function uses(vbd: Pick<BusRecord['vbds'][number], 'identity' | 'identities'>, identity: string): boolean {
  return vbd.identity === identity || (vbd.identities?.includes(identity) ?? false);
}
