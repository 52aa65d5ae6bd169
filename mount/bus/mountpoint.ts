/**
 * The directory of a bus before it is mounted: what a dead bus left there is taken away, and what it holds is looked at.
 */
import { readdirSync } from 'node:fs';
import { FusetapError } from '../../drivers/errors.js';
import { unmountAll } from '../fuse/unmount.js';
import { logEvent } from './log.js';

/**
 * Takes dead mounts of ours off the path. To be called by the one keeper of the bus, before it mounts: what is
 * mounted there then has no keeper any more.
 * @throws FusetapError USAGE where it is not a directory, or not empty
 */
export async function clearMountpoint(path: string): Promise<void> {
  for (let left = await unmountAll(path); left > 0; left--) logEvent({ event: 'repaired', path });
  if (listDirectory(path).length === 0) return;
  throw new FusetapError('USAGE', `the directory of a bus must be empty: ${path}`, {
    hint: 'a mount would hide what it holds; give an empty directory',
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
