/** The path of an image, as the keeper can follow it: from another directory, and from another process. */
import { realpathSync } from 'node:fs';
import { resolve } from 'node:path';

/** where each process finds itself, and not the one that asks it */
const OWN_FILES = /^\/(proc\/(self|thread-self)|dev\/(fd|stdin|stdout|stderr))(\/|$)/;

/** Absolute; of a descriptor of ours (`/dev/fd/3`), the path of the file that it leads to. */
export function imagePath(path: string): string {
  const absolute = resolve(path);
  if (!OWN_FILES.test(absolute)) return absolute;
  try {
    return realpathSync(absolute);
  } catch {
    // the keeper says what is wrong with it
    return absolute;
  }
}
