/**
 * A command inherits the descriptors of the shell that runs it. With `exec 7<$VBD`, the command itself would be a user
 * of the vbd that it is told to detach.
 */
import { close, openSync } from 'node:fs';
import { promisify } from 'node:util';
import { isBelow, listOpenFiles } from '../../system/proc.js';
import { within } from '../../system/within.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** close(2) of a file on a bus asks the bus, which may hang */
const LIMIT_MS = 2_000;

/** Closes the descriptors of this process on files of a bus, except stdout and stderr. For commands only. */
export async function closeInherited({ path }: BusPlace): Promise<void> {
  for (const { fd, path: file } of listOpenFiles('self')) {
    if (fd === 1 || fd === 2 || !isBelow(file, path)) continue;
    await within(promisify(close)(fd), LIMIT_MS, undefined);
    // another file must not become stdin
    if (fd === 0) openSync('/dev/null', 'r');
  }
}
