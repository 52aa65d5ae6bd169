/** What only some uses need: loop devices, and libfuse for the second transport. */
import { existsSync, readFileSync } from 'node:fs';
import { type Finding, fine, lacking } from './check.js';

/** Loop devices, to mount the file system of a vbd. */
export function lookAtLoop(): Finding {
  if (existsSync('/dev/loop-control')) return fine('/dev/loop-control is there');
  return lacking('there are no loop devices: a vbd cannot be mounted', 'modprobe loop; in a container, pass them in');
}

const LIBRARY = 'libfuse.so.2';
const DIRECTORIES = ['/lib', '/lib64', '/usr/lib', '/usr/lib64', '/lib/x86_64-linux-gnu', '/usr/lib/x86_64-linux-gnu'];

/** libfuse 2, which the transport fuse-native is linked with. */
export function lookAtLibfuse(): Finding {
  if (isInCache() || DIRECTORIES.some((directory) => existsSync(`${directory}/${LIBRARY}`))) return fine(LIBRARY);
  return lacking(
    `${LIBRARY} is not installed: no --transport fuse-native`,
    'apt install libfuse2, or dnf install fuse-libs',
  );
}

/** ldconfig's cache holds the names of all libraries as they are. */
function isInCache(): boolean {
  try {
    return readFileSync('/etc/ld.so.cache', 'latin1').includes(`${LIBRARY}\0`);
  } catch {
    return false;
  }
}
