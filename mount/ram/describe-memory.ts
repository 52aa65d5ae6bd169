/** The memory that the ram images of all buses of a runtime directory use, read from their links: no bus is asked. */
import type { MemoryInfo } from '../control/interface.js';
import { readBusRecords } from '../runtime/bus-record.js';
import { accountFor } from './account.js';
import { listLinks } from './links.js';
import { vbdsOf } from './users.js';

/** The data of `fusetap memory`: of all buses of a runtime directory, also of buses that do not answer. */
export function describeMemory(runtimeDir: string): MemoryInfo {
  const { images, limitBytes, usedBytes } = accountFor(listLinks(runtimeDir));
  const records = readBusRecords(runtimeDir);
  return {
    totalBytes: limitBytes,
    usedBytes,
    freeBytes: Math.max(0, limitBytes - usedBytes),
    images: images.map(({ first, links, residentBytes }) => ({
      share: first.share,
      image: first.image,
      configuredBytes: first.sizeBytes,
      residentBytes,
      holders: links.flatMap((link) => vbdsOf(link, records)),
    })),
  };
}
