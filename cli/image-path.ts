/** The path of an image in a form that the keeper can open: it has another working directory and other descriptors. */
import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';

/** paths that mean something else in each process */
const OWN_FILES = /^\/(proc\/(self|thread-self)|dev\/(fd|stdin|stdout|stderr))(\/|$)/;

/** The absolute path; for one of our descriptors (`/dev/fd/3`), the path of its file. */
export function imagePath(path: string): string {
  const absolute = resolve(path);
  if (!OWN_FILES.test(absolute)) return absolute;
  try {
    return realpathSync(absolute);
  } catch {
    // the keeper reports what is wrong with it
    return absolute;
  }
}
