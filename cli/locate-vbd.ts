/** Finds the vbd that an argument names, and its bus: see mount/client/finding/locate-vbd.ts. */
import { type LocatedVbd, VbdFinder } from '../mount/client/finding/locate-vbd.js';
import { closeInherited } from '../mount/client/inherited-files.js';
import { chosenBus, type SharedOptions } from './options.js';

/** Finds vbds for a command, each on the chosen bus, or for a path on any bus unless `--bus` was given. */
export async function vbdFinder(options: SharedOptions): Promise<VbdFinder> {
  return new VbdFinder({ place: await chosenBus(options), anyBus: options.bus === undefined });
}

/**
 * Finds one vbd to act on. This command is no user of it from then on.
 * @throws FusetapError NOT_FOUND; USAGE for the image of several vbds, and for a partition
 */
export async function locateVbd(word: string, options: SharedOptions): Promise<LocatedVbd> {
  const located = await (await vbdFinder(options)).find(word);
  await closeInherited(located.place);
  return located;
}
