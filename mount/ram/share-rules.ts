/**
 * Who shares which ram image.
 *
 * Without a name, vbds of the same file share. With a name that is held, the same file, an empty file or none at all
 * joins; another file of the same size joins with a remark; another size is refused. A name that is not held needs an
 * image that can be copied.
 */
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import type { OpenedImage } from '../images/open-image.js';
import type { RamLink } from './links.js';

/**
 * What tells an image from all others: device, inode, and when the inode was made (0 where the file system does not
 * know), for a new file may get the number of one that was removed while its copy lives on.
 */
export function imageIdentity({ kind, rdev, dev, ino, bornNs }: IdentifiedImage): string {
  return kind === 'block' ? `block:${rdev}` : `${dev}:${ino}:${bornNs}`;
}

export type IdentifiedImage = Pick<OpenedImage, 'kind' | 'rdev' | 'dev' | 'ino' | 'bornNs'>;

/** What an image is shared under where no name was given: `MAJ:MIN:INODE`, or `block:MAJ:MIN`. */
export function shareOfIdentity(identity: string): string {
  return identity.split(':').slice(0, 3).join(':');
}

/** Whether a link is one to the memory that is wanted. */
export function leadsTo(link: RamLink, { driver, share, image }: MemoryWish): boolean {
  if (link.driver !== driver) return false;
  if (share !== null) return link.share === share;
  const identity = image === null ? null : imageIdentity(image);
  return link.identity === identity && link.share === shareOfIdentity(identity);
}

/**
 * Checks that a memory may be joined.
 * @returns remarks for the user
 * @throws FusetapError BUSY where it is another image's
 */
export function checkJoin(link: RamLink, { image }: MemoryWish): string[] {
  if (image === null || image.sizeBytes === 0 || imageIdentity(image) === link.identity) return [];
  const [held, asked] = [named(link.image), named(image.path)];
  if (image.sizeBytes === link.sizeBytes) {
    return [`${link.share} holds ${held}: that is what you see, not ${asked}, which is another file of the same size`];
  }
  const sizes = `${held} with ${link.sizeBytes} bytes, not ${asked} with ${image.sizeBytes}`;
  throw new FusetapError('BUSY', `the ram image ${link.share} is ${sizes}`, {
    hint: `choose another name, or join it with ram: --share ${link.share}`,
    path: image.path,
    holders: [{ bus: link.bus, pid: link.pid }],
  });
}

/** The image that a memory which nobody has is to be copied from. @throws FusetapError USAGE where there is none */
export function checkNew({ image, share, driver }: MemoryWish): OpenedImage {
  if (image !== null && image.sizeBytes > 0) return image;
  const what = image === null ? 'no image was given' : `${named(image.path)} is empty`;
  throw new FusetapError('USAGE', `nothing is shared as ${share} yet, and ${what}`, {
    hint: `whoever is first gives an image: ${driver}:PATH --share ${share}`,
  });
}

/** Refuses unless one vbd of one keeper is all that has a memory. */
export function requireSole(links: readonly RamLink[], users: number): RamLink {
  const [link, ...others] = links;
  if (link === undefined) throw new FusetapError('FAILED', 'the link to a ram image was taken away');
  if (others.length === 0 && users === 1) return link;
  const buses = [...new Set((others.length === 0 ? links : others).map(({ bus }) => bus))].join(', ');
  throw new FusetapError('BUSY', `the ram image of ${named(link.image)} is shared with other vbds, on bus ${buses}`, {
    hint: 'detach them: fusetap memory lists them',
    holders: others.map(({ pid, bus }) => ({ pid, bus })),
  });
}

/** Which memory is wanted. */
export interface MemoryWish {
  readonly driver: string;
  /** the name it is shared under; null: by the identity of its image */
  readonly share: string | null;
  /** open; its size may be 0 where a name is given */
  readonly image: OpenedImage | null;
  /** the one who wants it went away */
  readonly signal: AbortSignal;
}
