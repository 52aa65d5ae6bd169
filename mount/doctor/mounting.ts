/** Who may mount, and what is there for those who may not. */
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { CAP_SYS_ADMIN, hasCapability } from './capabilities.js';
import { type Finding, fine, lacking } from './check.js';

const PROGRAM = 'fusermount3';

/** Whether a bus can be mounted at all. */
export function lookAtMounting(): Finding {
  if (hasCapability(CAP_SYS_ADMIN)) return fine('mount(2) is allowed');
  if (process.geteuid?.() === 0) {
    return lacking('root without CAP_SYS_ADMIN may not mount', 'in a container, add the capability SYS_ADMIN');
  }
  return lacking('mount(2) is for root only, and fusetap knows no other way yet', 'run fusetap as root');
}

/** fusermount3, by which libfuse mounts for who is not root. */
export function lookAtHelper(path: string = process.env.PATH ?? ''): Finding {
  const found = [...path.split(':'), '/usr/bin', '/bin'].map((directory) => join(directory, PROGRAM)).find(isProgram);
  if (found === undefined) {
    return lacking(`${PROGRAM} is not installed`, 'apt install fuse3, or dnf install fuse3');
  }
  const isSetuid = (statSync(found).mode & 0o4000) !== 0;
  return isSetuid ? fine(found) : lacking(`${found} is not setuid root`, `as root: chmod u+s ${found}`);
}

function isProgram(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
