/** Finds the vbd that uses an image, for messages of commands that need no bus. */
import type { DescribePid } from '../images/claim-image.js';
import { identityOf } from '../images/open-image.js';
import { runtimeDir } from '../runtime/bus-place.js';
import { findVbdOfPid } from '../runtime/bus-record.js';

export const describeUser: DescribePid = (pid, image) => {
  try {
    return findVbdOfPid(runtimeDir(process.env, process.geteuid?.() ?? 0), pid, identityOf(image));
  } catch {
    // without the records of buses the message has only the process
    return null;
  }
};
