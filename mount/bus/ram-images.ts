/**
 * The ram images of a runtime directory and what they take, told from the links to them.
 *
 * An image takes what it holds, and at least what is reserved for it: its data while it is being copied, its whole size
 * where the kernel may do its I/O (nobody is asked then before a hole is filled), and what its threads have been
 * granted to grow by.
 */
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { readBusRecords } from './bus-record.js';
import type { MemoryInfo } from './interface.js';
import { ramLimitBytes } from './ram-limit.js';
import { listLinks, type RamLink, residentBytes } from './ram-links.js';

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

/** What `fusetap memory` shows: of all buses of a runtime directory, whether or not one can be asked. */
export function describeMemory(runtimeDir: string): MemoryInfo {
  const { images, limitBytes, usedBytes } = accountFor(listLinks(runtimeDir));
  const records = readBusRecords(runtimeDir);
  const holdersOf = ({ id, pid, bus }: RamLink): Holder[] => {
    const record = records.find(({ keeperPid, serverPid }) => keeperPid === pid || serverPid === pid);
    const vbds = record?.vbds.filter((vbd) => vbd.memory === id) ?? [];
    return vbds.length === 0 ? [{ pid, bus }] : vbds.map(({ vdev }) => ({ pid, bus, vdev }));
  };
  return {
    totalBytes: limitBytes,
    usedBytes,
    freeBytes: Math.max(0, limitBytes - usedBytes),
    images: images.map(({ first, links, residentBytes }) => ({
      share: first.share,
      image: first.image,
      configuredBytes: first.sizeBytes,
      residentBytes,
      holders: links.flatMap(holdersOf),
    })),
  };
}
