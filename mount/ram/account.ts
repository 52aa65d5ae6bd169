/**
 * The ram images of a runtime directory and the memory that they use, computed from the links to them.
 *
 * An image counts with its resident bytes plus the growth granted to its threads, but at least with the bytes reserved
 * for it: the size of its data while it is copied, or its whole size if the kernel may do its I/O (the kernel does not
 * ask before it fills a hole).
 */
import { FusetapError } from '../../drivers/errors.js';
import { PAGE_BYTES } from '../../system/page.js';
import { ramLimitBytes } from './limit.js';
import { type RamLink, residentBytes } from './links.js';

/** An image with all links to it. */
export interface RamImageUsage {
  readonly first: RamLink;
  readonly links: readonly RamLink[];
  readonly residentBytes: number;
  readonly usedBytes: number;
}

/** The use of all ram images, and the limit, in bytes. */
export interface RamAccount {
  readonly images: readonly RamImageUsage[];
  readonly limitBytes: number;
  readonly usedBytes: number;
}

/** Adds up the links. @throws FusetapError USAGE if FUSETAP_RAM_LIMIT is not a size */
export function accountFor(links: readonly RamLink[]): RamAccount {
  const byId = new Map<string, RamLink[]>();
  for (const link of links) byId.set(link.id, [...(byId.get(link.id) ?? []), link]);
  const images = [...byId.values()].map((own) => measureImage(own as [RamLink, ...RamLink[]]));
  const heldBytes = images.reduce((sum, image) => sum + image.residentBytes, 0);
  const usedBytes = images.reduce((sum, image) => sum + image.usedBytes, 0);
  return { images, limitBytes: ramLimitBytes(heldBytes), usedBytes };
}

/** A request for an image to grow. */
export interface Growth {
  /** more bytes that the image asks for */
  readonly wantedBytes: number;
  /** the part of it that is needed at once */
  readonly neededBytes: number;
}

/**
 * @returns the bytes by which an image may grow: less than wanted, perhaps 0, if the limit is near. Bytes that are not
 *   needed at once are granted only up to half of the free space, so that an image that asks often does not block
 *   others.
 */
export function growthWithin(account: RamAccount, id: string, { wantedBytes, neededBytes }: Growth): number {
  const image = account.images.find(({ first }) => first.id === id);
  if (image === undefined) return 0;
  const granted = image.links.reduce((sum, link) => sum + link.grantedBytes, 0);
  const reservedAhead = image.usedBytes - image.residentBytes - granted;
  const room = Math.min(Number.MAX_SAFE_INTEGER, account.limitBytes - account.usedBytes + reservedAhead);
  const half = room / 2 - ((room / 2) % PAGE_BYTES);
  return Math.max(0, Math.min(wantedBytes, room, Math.max(neededBytes, half)));
}

function measureImage(links: [RamLink, ...RamLink[]]): RamImageUsage {
  const first = links[0];
  const resident = residentBytes(first);
  const granted = links.reduce((sum, { grantedBytes }) => sum + grantedBytes, 0);
  const reserved = Math.max(...links.map(({ reservedBytes }) => reservedBytes));
  return { first, links, residentBytes: resident, usedBytes: Math.max(reserved, resident + granted) };
}

/**
 * Throws if `wantedBytes` more do not fit below the limit.
 * @param what the image, for the message
 * @throws FusetapError NO_SPACE; the message says how many bytes are missing
 */
export function refuseAboveLimit(what: string, wantedBytes: number, { limitBytes, usedBytes }: RamAccount): void {
  const excessBytes = usedBytes + wantedBytes - limitBytes;
  if (excessBytes <= 0) return;
  const free = Math.max(0, limitBytes - usedBytes);
  const message =
    `${what} takes ${wantedBytes} bytes of memory, ${wantedBytes - free} more than are free: ` +
    `the limit is ${limitBytes}, ${usedBytes} are in use`;
  throw new FusetapError('NO_SPACE', message, {
    hint: 'detach other ram vbds (fusetap memory lists them), raise FUSETAP_RAM_LIMIT, or use the driver aio',
  });
}
