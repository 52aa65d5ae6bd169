/**
 * The rules for sharing ram images.
 *
 * Without a name, vbds of the same file share one ram image. With a name that is in use, an attach joins its ram image:
 * with the same file, an empty file or no file; with another file of the same size and a remark. A file of another size
 * is refused. A name that is not in use needs an image that can be copied.
 */

import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { builtin } from '../../system/builtin.js';
import type { OpenedImage } from '../images/open-image.js';
import type { RamLink } from './links.js';

/**
 * Identifies an image file: device, inode, and birth time of the inode (0 if the file system does not record it). The
 * birth time is needed because a new file may get the inode number of a removed file whose copy still exists.
 */
export function imageIdentity({ kind, rdev, dev, ino, bornNs }: IdentifiedImage): string {
  return kind === 'block' ? `block:${rdev}` : `${dev}:${ino}:${bornNs}`;
}

/**
 * Identifies what drivers make of an image: the identity of the image and a hash of the drivers and their options.
 * @param image the identity of the image
 */
export function treeIdentity(image: string, tree: string): string {
  return `${image}:${builtin.crypto.createHash('sha256').update(tree).digest('hex').slice(0, 12)}`;
}

export type IdentifiedImage = Pick<OpenedImage, 'kind' | 'rdev' | 'dev' | 'ino' | 'bornNs'>;

/**
 * The share name of an image if none was given: `MAJ:MIN:INODE`, or `block:MAJ:MIN`; for what drivers make of it, with
 * the hash of treeIdentity.
 */
export function shareOfIdentity(identity: string): string {
  const parts = identity.split(':');
  const hash = parts[0] === 'block' ? parts[3] : parts[4];
  return [...parts.slice(0, 3), ...(hash === undefined ? [] : [hash])].join(':');
}

/** The identity of what an attach would copy; null if it names no image. */
export function wishedIdentity({ image, identity }: Pick<RamImageWish, 'image' | 'identity'>): string | null {
  return image === null ? null : (identity ?? imageIdentity(image));
}

/** Whether a link leads to the ram image that an attach asks for. */
export function leadsTo(link: RamLink, { driver, share, ...wish }: RamImageWish): boolean {
  if (link.driver !== driver) return false;
  if (share !== null) return link.share === share;
  const identity = wishedIdentity(wish);
  return identity !== null && link.identity === identity && link.share === shareOfIdentity(identity);
}

/**
 * Checks that an attach may join a ram image.
 * @returns remarks for the user
 * @throws FusetapError BUSY if the ram image is a copy of a file of another size
 */
export function checkJoin(link: RamLink, wish: RamImageWish): string[] {
  const { image } = wish;
  if (image === null || image.sizeBytes === 0 || wishedIdentity(wish) === link.identity) return [];
  const [held, asked] = [named(link.image), named(image.path)];
  if (image.sizeBytes === link.sizeBytes) {
    return [`${link.share} is a copy of ${held}: the vbd shows that, not ${asked}, another file of the same size`];
  }
  const sizes = `${held} with ${link.sizeBytes} bytes, not ${asked} with ${image.sizeBytes}`;
  throw new FusetapError('BUSY', `the ram image ${link.share} is ${sizes}`, {
    hint: `choose another name, or join it with ram: --share ${link.share}`,
    path: image.path,
    holders: [{ bus: link.bus, pid: link.pid }],
  });
}

/** The image that a new ram image is copied from. @throws FusetapError USAGE if there is none */
export function checkNew({ image, share, driver }: RamImageWish): OpenedImage {
  if (image !== null && image.sizeBytes > 0) return image;
  const what = image === null ? 'no image was given' : `${named(image.path)} is empty`;
  throw new FusetapError('USAGE', `nothing is shared as ${share} yet, and ${what}`, {
    hint: `the first attach must give an image: ${driver}:PATH --share ${share}`,
  });
}

/** Throws unless a single vbd of a single keeper has the ram image. */
export function requireSole(links: readonly RamLink[], users: number): RamLink {
  const [link, ...others] = links;
  if (link === undefined) throw new FusetapError('FAILED', 'the link to a ram image was removed');
  if (others.length === 0 && users === 1) return link;
  const buses = [...new Set((others.length === 0 ? links : others).map(({ bus }) => bus))].join(', ');
  throw new FusetapError('BUSY', `the ram image of ${named(link.image)} is shared with other vbds, on bus ${buses}`, {
    hint: 'detach them: fusetap memory lists them',
    holders: others.map(({ pid, bus }) => ({ pid, bus })),
  });
}

/** The ram image that an attach asks for. */
export interface RamImageWish {
  readonly driver: string;
  /** the name it is shared by; null: shared by the identity of its image */
  readonly share: string | null;
  /** open; its size may be 0 if a name is given */
  readonly image: OpenedImage | null;
  /** if drivers make something else of the image: see treeIdentity */
  readonly identity?: string;
  /** aborts when the client that asked has gone away */
  readonly signal: AbortSignal;
}
