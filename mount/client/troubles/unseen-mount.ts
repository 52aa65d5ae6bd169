/** Explains a bus that is mounted in another mount namespace: it runs, but its files are not visible here. */
import { readlinkSync } from 'node:fs';
import { FusetapError } from '../../../drivers/errors.js';
import { mountOn } from '../../../system/proc.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { readBusRecord } from '../../runtime/bus-record.js';

/** @returns the error to throw; null if the bus is mounted here, or its keeper is not known */
export async function explainUnseen({ name, path, stateDir }: BusPlace, cause: unknown): Promise<FusetapError | null> {
  if ((await mountOn(path)) !== undefined) return null;
  const pid = readBusRecord(stateDir)?.keeperPid ?? null;
  if (pid === null || !isElsewhere(pid)) return null;
  return new FusetapError('FAILED', `bus ${name} is mounted in the mount namespace of pid ${pid}, not in this one`, {
    hint: `attach it there, with nsenter --mount --target ${pid}, or choose another bus with --bus`,
    operation: 'mount-namespace',
    path,
    holders: [{ pid }],
    cause,
  });
}

function isElsewhere(pid: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/mnt`) !== readlinkSync('/proc/self/ns/mnt');
  } catch {
    // not permitted: so it is not known whether this is the cause
    return false;
  }
}
