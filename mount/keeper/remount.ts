/** Prepares the keeper's records for another mount of its bus. */
import type { BusParts } from './vbds/bus-parts.js';
import { bytesFd } from './vbds/vbd.js';

/**
 * Resets the keeper's records to those of a bus that has just been mounted: no file is open, no request is under way,
 * and no file is registered for passthrough.
 * @param register see AttachContext
 */
export function prepareRemount({ ledger, vbds }: BusParts, register: (fd: number) => number): void {
  ledger.clearHandles();
  ledger.takeInFlight();
  for (const vbd of vbds.all()) {
    vbd.leaving = false;
    for (const partition of vbd.partitions ?? []) partition.leaving = false;
    const fd = bytesFd(vbd);
    if (fd === undefined) continue;
    // if the kernel refuses it now, threads serve the vbd, and it cannot be mapped
    if (vbd.backingId !== null) vbd.backingId = idOrNull(register(fd));
    if (vbd.mapId !== null) vbd.mapId = idOrNull(register(fd));
  }
}

function idOrNull(id: number): number | null {
  return id > 0 ? id : null;
}
