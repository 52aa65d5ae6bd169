/** A bus whose mount is not in our mount namespace: it runs, but none of its files is here. */
import { readlinkSync } from 'node:fs';
import { FusetapError } from '../../drivers/errors.js';
import { mountOn } from '../../system/proc.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { readBusRecord } from '../runtime/bus-record.js';

/** @returns what to say of it; null where the bus is mounted here, or nothing is known of its keeper */
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
    // it is not ours to look at: whatever is wrong, nobody can tell that it is this
    return false;
  }
}
