/**
 * The directory of a bus before it is mounted: what a dead bus left there is taken away, a bus that is alive stays, and what
 * the directory holds is looked at.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { clearDeadMounts } from '../fuse/mounting/dead-mounts.js';
import { refuseLiveBus } from '../runtime/bus-owner.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { logEvent } from '../runtime/log.js';

/**
 * Takes dead buses off the directory. To be called by the one keeper of the bus, before it mounts. Its lock is of one
 * runtime directory, so a bus that is alive there is of another one, or of another user.
 * @throws FusetapError BUSY where a bus that is alive is mounted there; USAGE where it is no directory, or not empty
 */
export async function clearMountpoint({ path, ownDirectory }: BusPlace): Promise<void> {
  const { cleared, alive } = await clearDeadMounts(path);
  for (let left = cleared; left > 0; left--) logEvent({ event: 'repaired', path });
  if (alive !== null) throw refuseLiveBus(path, alive);
  const [file] = listDirectory(path);
  if (file === undefined) return;
  throw new FusetapError('USAGE', `the directory of a bus must be empty: ${path} holds ${file}`, {
    hint: ownDirectory ? 'a mount would hide it; give an empty directory' : `remove ${join(path, file)}`,
    path,
  });
}

function listDirectory(path: string): string[] {
  try {
    return readdirSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOTDIR') throw error;
    throw new FusetapError('USAGE', `not a directory, so no place for a bus: ${path}`, {
      hint: 'give an empty directory',
      path,
    });
  }
}
