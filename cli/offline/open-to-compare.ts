/**
 * Opens what `fusetap diff` compares: an image as it is, and a vbd by its file, as any program reads it. The path of an image
 * means the image here, also if a vbd has it: a ram vbd is compared with the image that it is a copy of.
 */
import { realpathSync, statSync } from 'node:fs';
import { FusetapError } from '../../drivers/errors.js';
import { DEFAULT_DRIVER } from '../../drivers/names.js';
import { isPath, type LocatedVbd } from '../../mount/client/finding/locate-vbd.js';
import { listBuses } from '../../mount/client/index.js';
import { identityOf } from '../../mount/images/open-image.js';
import { MappedImage } from '../../mount/offline/mapped-image.js';
import { readBusRecords } from '../../mount/runtime/bus-record.js';
import { deviceName } from '../../system/proc.js';
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
  if (isPath(word)) {
    if (await isSomeImage(word)) return null;
  }
  return await findVbd(word, options);
}

/** Whether a vbd has this file as its image. Looks at the file only, not at any other image: their disks may hang. */
async function isSomeImage(path: string): Promise<boolean> {
  const runtimeDir = callersRuntimeDir();
  let real: string;
  let identity: string;
  try {
    real = realpathSync(path);
    const { dev, ino, rdev, ...stats } = statSync(real, { bigint: true });
    identity = identityOf({
      ...{ dev: deviceName(dev), ino: String(ino) },
      rdev: stats.isBlockDevice() ? deviceName(rdev) : null,
    });
  } catch {
    return false;
  }
  const { buses } = await listBuses(runtimeDir);
  const vbds = buses.flatMap((bus) => bus.vbds);
  // a path of an image may have a link in it, so it is also known by its identity
  return (
    vbds.some(({ image, movedTo }) => real === (movedTo ?? image)) ||
    readBusRecords(runtimeDir).some((record) => record.vbds.some((vbd) => vbd.identity === identity))
  );
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
