/**
 * The arguments of a command that attaches several images: each SPEC may have a VDEV and a MODE after it.
 *
 *      attach a.img xvdb r b.img c.img    ──►    a.img at xvdb with mode r, b.img, c.img
 *
 * A word that can be a vdev or a mode is one: a file of that name is given with its path, as ./xvdb.
 */
import { existsSync, statSync } from 'node:fs';
import { FusetapError } from '../drivers/errors.js';
import { named, quoted } from '../drivers/quote.js';
import { isMode } from '../mount/images/mode.js';
import { type AttachWords, attachRequest, isGivenApart } from './attach-request.js';
import { isVdevField } from './disk-spec/index.js';
import { at, type ListedDisk } from './listed-disk.js';
import { refuseTag } from './locate-vbd.js';

/** SPEC, VDEV, MODE */
type Disk = [spec: string, vdev?: string | undefined, mode?: string | undefined];

/** The disks that the arguments name. @throws FusetapError USAGE, NOT_FOUND, UNSUPPORTED */
export function disksOfWords(words: readonly string[], options: AttachWords): ListedDisk[] {
  if (isGivenApart(options)) return [{ where: null, ...attachRequest(placeOfWords(words, options), options) }];
  return disksOfSpecs(splitWords(words), options);
}

/** The disks of SPECs, perhaps with VDEV and MODE. @throws FusetapError USAGE, NOT_FOUND, UNSUPPORTED */
export function disksOfSpecs(disks: readonly Disk[], options: AttachWords): ListedDisk[] {
  if (disks.length === 0) throw new FusetapError('USAGE', 'nothing to attach', { hint: 'give a SPEC, or --image' });
  if (disks.length > 1 && options.vdev !== undefined) {
    throw new FusetapError('USAGE', `--vdev ${options.vdev} is for one disk, and there are ${disks.length}`, {
      hint: 'write VDEV after its SPEC',
    });
  }
  for (const [spec] of disks) refuseTag(spec);
  return disks.map((disk) => {
    const where = disks.length > 1 ? named(disk[0]) : null;
    return { where, ...at(where, () => attachRequest(disk, options)) };
  });
}

function splitWords(words: readonly string[]): Disk[] {
  const disks: Disk[] = [];
  for (const word of words) {
    const disk = disks.at(-1);
    if (disk === undefined || !takes(disk, word)) disks.push([disk === undefined ? word : checkSpec(disk, word)]);
  }
  return disks;
}

/** Adds a word to the disk before it, if it can be the vdev or the mode of that. */
function takes(disk: Disk, word: string): boolean {
  const [, vdev, mode] = disk;
  if (mode !== undefined) return false;
  if (vdev === undefined && isVdevField(word)) disk[1] = word;
  else if (isMode(word) || (vdev !== undefined && !isSpec(word))) disk[2] = word;
  else return false;
  return true;
}

/** Whether a word behind the first is a SPEC: it names a driver or more than a path, or there is such a file. */
function isSpec(word: string): boolean {
  return /[,=]|^[a-z][a-z0-9-]*:/.test(word) || (existsSync(word) && !statSync(word).isDirectory());
}

function checkSpec([, vdev, mode]: Disk, word: string): string {
  if (isSpec(word)) return word;
  const what = mode !== undefined || vdev !== undefined ? 'not an image' : 'neither a vdev nor an image';
  const why = existsSync(word) ? 'it is a directory' : 'there is no such file';
  throw new FusetapError('USAGE', `${quoted(word)} is ${what}: ${why}`, {
    hint: 'a SPEC is a path or DRIVER:PATH; VDEV is xvda, hda, sda or a slot number; MODE is r, w or w!',
  });
}

/** VDEV and MODE beside `--driver` and `--image`. */
function placeOfWords(words: readonly string[], { image }: AttachWords): Disk {
  const disk: Disk = [''];
  for (const word of words) {
    if (takes(disk, word)) continue;
    throw new FusetapError('USAGE', `${quoted(word)} is not a vdev: with --driver or --image there is no SPEC`, {
      hint:
        image === undefined
          ? `with --driver the image is --image ${named(word)}`
          : 'give only [VDEV] [MODE], or omit --driver and --image',
    });
  }
  return disk;
}
