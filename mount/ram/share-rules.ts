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
 * The share name of an image if none was given: `MAJ:MIN:INODE`, `block:MAJ:MIN` or `remote:0:HASH`; for what drivers make of it, with
 * the hash of treeIdentity.
 */
export function shareOfIdentity(identity: string): string {
  const parts = identity.split(':');
  // a file has its birth time before the hash
  const hash = parts[0] === 'block' || parts[0] === 'remote' ? parts[3] : parts[4];
  return [...parts.slice(0, 3), ...(hash === undefined ? [] : [hash])].join(':');
}

/** Identifies a disk on a network by the name by which it is claimed. */
export function remoteIdentity(name: string): string {
  return `remote:0:${builtin.crypto.createHash('sha256').update(name).digest('hex').slice(0, 16)}`;
}

/** Whether a link leads to the ram image that an attach asks for. */
export function leadsTo(link: RamLink, { driver, share, image }: RamImageWish): boolean {
  if (link.driver !== driver) return false;
  if (share !== null) return link.share === share;
  return image !== null && link.identity === image.identity && link.share === shareOfIdentity(image.identity);
}

/**
 * Checks that an attach may join a ram image.
 * @returns remarks for the user
 * @throws FusetapError BUSY if the ram image is a copy of a file of another size
 */
export function checkJoin(link: RamLink, { image }: RamImageWish): string[] {
  if (image === null || image.sizeBytes === 0 || image.identity === link.identity) return [];
  const [held, asked] = [named(link.image), named(image.path)];
  if (image.sizeBytes === link.sizeBytes) {
    return [`${link.share} is a copy of ${held}: the vbd shows that, not ${asked}, another file of the same size`];
  }
  if (image.sizeBytes === null) return [`${link.share} is a copy of ${held}: the vbd shows that, not ${asked}`];
  const sizes = `${held} with ${link.sizeBytes} bytes, not ${asked} with ${image.sizeBytes}`;
  throw new FusetapError('BUSY', `the ram image ${link.share} is ${sizes}`, {
    hint: `choose another name, or join it with ram: --share ${link.share}`,
    path: image.path,
    holders: [{ bus: link.bus, pid: link.pid }],
  });
}

/** The image that a new ram image is copied from. @throws FusetapError USAGE if there is none */
export function checkNew({ image, share, driver }: RamImageWish): CopiedImage {
  if (image !== null && image.sizeBytes !== 0) return image;
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

/** What a ram image is a copy of: a file, or a disk on a network. */
export interface CopiedImage {
  /** the path of the file; the name of the disk */
  readonly path: string;
  /** of the file, and 0 only if a name is given; null if it is not known before the copy */
  readonly sizeBytes: number | null;
  /** when the file was last changed; null if it is not a file */
  readonly modifiedMs: number | null;
  /** imageIdentity or remoteIdentity; if drivers make something else of it: treeIdentity */
  readonly identity: string;
}

/** The ram image that an attach asks for. */
export interface RamImageWish {
  readonly driver: string;
  /** the name it is shared by; null: shared by the identity of its image */
  readonly share: string | null;
  /** null: a name is given, and no image */
  readonly image: CopiedImage | null;
  /** aborts when the client that asked has gone away */
  readonly signal: AbortSignal;
}
