/**
 * The ram images of a runtime directory and what they take, told from the links to them.
 *
 * An image takes what it holds, and at least what is reserved for it: its data while it is being copied, its whole size
 * where the kernel may do its I/O (nobody is asked then before a hole is filled), and what its threads have been
 * granted to grow by.
 */
import { FusetapError } from '../../drivers/errors.js';
import { PAGE_BYTES } from '../../system/page.js';
import { ramLimitBytes } from './limit.js';
import { type RamLink, residentBytes } from './links.js';

/** An image with all links to it. */
export interface RamImage {
  readonly first: RamLink;
  readonly links: readonly RamLink[];
  readonly residentBytes: number;
  readonly usedBytes: number;
}

/** What is there, in bytes. */
export interface RamAccount {
  readonly images: readonly RamImage[];
  readonly limitBytes: number;
  readonly usedBytes: number;
}

/** Adds up what the links tell. @throws FusetapError USAGE where FUSETAP_RAM_LIMIT is no size */
export function accountFor(links: readonly RamLink[]): RamAccount {
  const byId = new Map<string, RamLink[]>();
  for (const link of links) byId.set(link.id, [...(byId.get(link.id) ?? []), link]);
  const images = [...byId.values()].map((own) => measureImage(own as [RamLink, ...RamLink[]]));
  const heldBytes = images.reduce((sum, image) => sum + image.residentBytes, 0);
  const usedBytes = images.reduce((sum, image) => sum + image.usedBytes, 0);
  return { images, limitBytes: ramLimitBytes(heldBytes), usedBytes };
}

/** How much a memory wants to grow. */
export interface Growth {
  /** how much more would be good to have */
  readonly wantedBytes: number;
  /** how much of it there is a use for now */
  readonly neededBytes: number;
}

/**
 * @returns how much more an image may grow: less than it wants, perhaps 0, where the limit is near. Of what it has no use
 *   for now half is left, so that nobody who asks all the time keeps others from what they need.
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

function measureImage(links: [RamLink, ...RamLink[]]): RamImage {
  const first = links[0];
  const resident = residentBytes(first);
  const granted = links.reduce((sum, { grantedBytes }) => sum + grantedBytes, 0);
  const reserved = Math.max(...links.map(({ reservedBytes }) => reservedBytes));
  return { first, links, residentBytes: resident, usedBytes: Math.max(reserved, resident + granted) };
}

/**
 * Refuses what does not fit.
 * @param what that takes the memory, for the message
 * @throws FusetapError NO_SPACE, saying by how much
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
