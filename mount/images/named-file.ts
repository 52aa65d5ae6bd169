/**
 * Where a file is that an image names. The name is hostile input: a policy says which names may be used, and the place is
 * always looked up from the directory of the image.
 */
import { dirname, isAbsolute, join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { named, quoted } from '../../drivers/quote.js';
import type { OpenedImage } from './open-image.js';

/** as PATH_MAX */
const LONGEST = 4096;

/** Which files an image may name: those in its directory and below, any, or none. */
export type NamePolicy = 'same-directory' | 'any' | 'none';

/** A file that an image names. */
export interface NamedPlace {
  /** absolute */
  readonly path: string;
  /** the directory that it must be in, also behind symbolic links; undefined: any */
  readonly below: string | undefined;
}

/**
 * @param name as the image has it
 * @param owner the image
 * @throws FusetapError DENIED if the policy forbids the name, or if it is no path
 */
export function placeOfNamed(
  name: string,
  owner: Pick<OpenedImage, 'path' | 'realPath' | 'kind'>,
  policy: NamePolicy,
): NamedPlace {
  const directory = dirname(owner.realPath);
  const refuse = (why: string, hint: string): FusetapError => {
    const shown = quoted(name.length > 200 ? `${name.slice(0, 200)}…` : name);
    return new FusetapError('DENIED', `${named(owner.path)} names the file ${shown}, ${why}`, {
      path: owner.path,
      hint,
    });
  };
  if (owner.kind === 'block' && policy !== 'any') {
    throw refuse('and a device has no directory', 'if you trust it: --backing any');
  }
  if (policy === 'none') throw refuse('and --backing none forbids that', 'allow it with --backing same-directory');
  if (name === '' || name.length > LONGEST || /\p{Cc}/u.test(name)) {
    throw refuse('which is no path', 'repair the image, or give the files of its chain yourself');
  }
  // as QEMU sees it; ./a:b is a path
  if (/^[^/]*:/.test(name)) {
    throw refuse('which is not a path but a protocol', 'only files in the file system are opened');
  }
  const path = join('/', isAbsolute(name) ? name : join(directory, name));
  const isInside = path.startsWith(directory === '/' ? '/' : `${directory}/`);
  if (policy === 'same-directory' && !isInside) {
    const hint = 'if you trust the image: --backing any; or copy the file there';
    throw refuse(`which is not below ${named(directory)}`, hint);
  }
  return { path, below: policy === 'any' ? undefined : directory };
}
