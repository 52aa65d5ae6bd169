/** Finds the programs of the system that fusetap runs. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** the second belongs to fuse 2; it does the same handshake */
const FUSERMOUNTS = ['fusermount3', 'fusermount'];
/** searched as well, because the PATH of a service may be short */
const USUAL_PLACES = ['/usr/bin', '/bin', '/usr/local/bin'];

/** The path of fusermount3 or fusermount; null if neither is installed. */
export function findFusermount(path: string = process.env.PATH ?? ''): string | null {
  const directories = [...path.split(':').filter((directory) => directory.startsWith('/')), ...USUAL_PLACES];
  for (const program of FUSERMOUNTS) {
    const found = directories.map((directory) => join(directory, program)).find(isProgram);
    if (found !== undefined) return found;
  }
  return null;
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
