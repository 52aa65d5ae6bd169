/**
 * The directory of a bus before it is mounted: dead mounts are removed from it, a live bus there is refused, and the
 * directory must be empty.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { clearDeadMounts } from '../fuse/mounting/dead-mounts.js';
import { refuseLiveBus } from '../runtime/bus-owner.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { logEvent } from '../runtime/log.js';

/**
 * Removes the mounts of dead buses. To be called by the keeper that has the lock on the bus, before it mounts. The lock
 * belongs to one runtime directory, so a live bus found here belongs to another runtime directory or another user.
 * @throws FusetapError BUSY if a live bus is mounted there; USAGE if it is no directory, or not empty
 */
export async function clearMountpoint({ path, ownDirectory }: BusPlace): Promise<void> {
  const { cleared, alive } = await clearDeadMounts(path);
  for (let left = cleared; left > 0; left--) logEvent({ event: 'repaired', path });
  if (alive !== null) throw refuseLiveBus(path, alive);
  const [file] = listDirectory(path);
  if (file === undefined) return;
  throw new FusetapError('USAGE', `the directory of a bus must be empty: ${path} contains ${file}`, {
    hint: ownDirectory ? 'a mount would hide it; give an empty directory' : `remove ${join(path, file)}`,
    path,
  });
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTDIR') throw error;
    throw new FusetapError('USAGE', `not a directory: ${path}`, {
      hint: 'a bus needs an empty directory',
      path,
    });
  }
}
