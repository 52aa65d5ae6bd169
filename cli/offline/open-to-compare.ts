/**
 * Opens what `fusetap diff` compares: an image as it is, and a vbd by its file, as any program reads it. The path of an image
 * means the image here, also if a vbd has it: a ram vbd is compared with the image that it is a copy of.
 */
import { FusetapError } from '../../drivers/errors.js';
import { DEFAULT_DRIVER } from '../../drivers/names.js';
import { isImageOfVbd } from '../../mount/client/finding/image-of-vbd.js';
import { isPath, type LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import { MappedImage } from '../../mount/offline/mapped-image.js';
import { callersRuntimeDir } from '../options.js';
import { type DiskOptions, diskOfImage, diskOfVbd, type FoundDisk, findVbd, openSpec } from './found-disk.js';

export interface Compared {
  readonly image: MappedImage;
  /** its map, for a picture; the caller closes `image` only */
  readonly disk: FoundDisk;
}

/** @throws FusetapError as findDisk; BUSY for a vbd whose requests wait: a read of it would wait, too */
export async function openToCompare(
  words: readonly [string, string],
  options: DiskOptions,
): Promise<[Compared, Compared]> {
  // both before one is opened: finding a vbd closes what this process has open of it
  const located = [await findOnBus(words[0], options), await findOnBus(words[1], options)] as const;
  const first = await openOne(words[0], located[0], options);
  try {
    return [first, await openOne(words[1], located[1], options)];
  } catch (error) {
    await first.image.close();
    throw error;
  }
}

/** The vbd that a word names; null: it names an image, also one that vbds have. */
async function findOnBus(word: string, options: DiskOptions): Promise<LocatedVbd | null> {
  if (isPath(word) && (await isImageOfVbd(word, callersRuntimeDir()))) return null;
  return await findVbd(word, options);
}

async function openOne(word: string, located: LocatedVbd | null, options: DiskOptions): Promise<Compared> {
  if (located === null) {
    const image = await openSpec(word, options);
    return { image, disk: diskOfImage(word, image) };
  }
  const { vdev, state, path } = located.vbd;
  if (state !== 'running') {
    throw new FusetapError('BUSY', `${vdev} is ${state}: it cannot be read now`, {
      hint: state === 'paused' ? `fusetap resume ${vdev}` : 'try again later',
    });
  }
  const image = await MappedImage.open({ driver: DEFAULT_DRIVER, image: path, options: {}, isOnlyImage: false });
  return { image, disk: await diskOfVbd(located) };
}
