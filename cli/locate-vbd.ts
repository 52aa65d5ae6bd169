/** Finds the vbd that an argument names, and its bus: see mount/client/finding/locate-vbd.ts. */
import { existsSync } from 'node:fs';
import { FusetapError } from '../drivers/errors.js';
import { quoted } from '../drivers/quote.js';
import { type LocatedVbd, VbdFinder } from '../mount/client/finding/locate-vbd.js';
import { parseTag } from '../mount/client/finding/names.js';
import type { BusPlace } from '../mount/client/index.js';
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

/** The bus, and the only vbd or partition of it if a word names one. */
export async function busAndVdev(
  word: string | undefined,
  options: SharedOptions,
): Promise<{ place: BusPlace; vdev: string | undefined }> {
  if (word === undefined) return { place: await chosenBus(options), vdev: undefined };
  const { place, vbd, partition } = await (await vbdFinder(options)).findAny(word);
  return { place, vdev: (partition ?? vbd).vdev };
}

/**
 * The path that a word of `mount` or `umount` means: of LABEL=x, UUID=x and so on the path of the vbd or partition that has
 * the name, on the bus that `--bus` names, or on any; all other words are returned as they are. A file of such a name is
 * given as `./LABEL=x`.
 * @throws FusetapError NOT_FOUND; USAGE if several have the name; BUSY if others could not be asked
 */
export async function pathOfTag(word: string, options: SharedOptions): Promise<string> {
  if (parseTag(word) === null) return word;
  const { vbd, partition } = await (await vbdFinder(options)).findAny(word);
  return (partition ?? vbd).path;
}

/** @throws FusetapError USAGE for a name of a disk where an image is wanted */
export function refuseTag(spec: string): void {
  const tag = parseTag(spec);
  if (tag === null || existsSync(spec)) return;
  throw new FusetapError('USAGE', `${quoted(spec)} is no image: it names a disk that is attached already`, {
    hint: 'give the image; fusetap mount LABEL=x DIR mounts what is attached, fusetap show LABEL=x shows it',
  });
}
