/** The image that a command without a bus looks at: `fusetap info disk.img`, `fusetap check qcow2:disk.img`. */
import { FusetapError } from '../../drivers/errors.js';
import { DEFAULT_DRIVER } from '../../drivers/names.js';
import { quoted } from '../../drivers/quote.js';
import type { ImageWish } from '../../mount/offline/offline-image.js';
import { imagePath } from '../image-path.js';
import { typedSpec } from '../typed-spec.js';

/** a path with one of these before it is raw; without any, its format is recognized */
const RAW = /^(?:aio|raw|sync):/;

/** Whether a SPEC is the path of an image and nothing else. @throws as typedSpec */
export function isOnlyImage(text: string): boolean {
  const { driver, below = [] } = typedSpec(text);
  return driver === DEFAULT_DRIVER && below.length === 0 && !RAW.test(text);
}

/** @throws FusetapError USAGE, NOT_FOUND, UNSUPPORTED */
export function imageWish(text: string): ImageWish {
  const { driver, below = [], image, belowDev, vdev, mode } = typedSpec(text);
  if (image === null) throw new FusetapError('USAGE', `${quoted(text)} names no image`, { hint: 'give its path' });
  if (vdev !== null || mode !== null) {
    throw new FusetapError('USAGE', `${quoted(text)} has a place on a bus`, { hint: 'give only the image' });
  }
  return { path: imagePath(image, belowDev), drivers: isOnlyImage(text) ? [] : [driver, ...below] };
}

export const IMAGE_OR_SPEC_HELP = 'an image, whose format is recognized, or DRIVER:IMAGE';
