/** Programs of the system that fusetap runs, and where they are. */
import { accessSync, constants } from 'node:fs';
import { join } from 'node:path';

/** the second is fuse 2's; it does the same handshake */
const FUSERMOUNTS = ['fusermount3', 'fusermount'];
/** a service may have a short PATH */
const USUAL_PLACES = ['/usr/bin', '/bin', '/usr/local/bin'];

/** The helper's path, or null where none is installed. */
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
