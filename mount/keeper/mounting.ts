/**
 * The mount of a bus. It is made when the bus starts, and again when a bus that was given up is started again.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { closeDevices, type KernelMount, mountKernel } from '../fuse/mounting/device.js';
import { deviceClones } from '../fuse/protocol/thread-counts.js';
import type { BusParts } from './vbds/bus-parts.js';
import { bytesFd } from './vbds/vbd.js';

type Mounted = Pick<BusParts, 'place' | 'transport' | 'allowOther'>;

/** Mounts the bus. With transport fuse-native the server mounts, and the keeper has no descriptor of the mount. */
export async function mountBus({ place, transport, allowOther }: Mounted): Promise<KernelMount> {
  const end = { lockPath: join(place.stateDir, 'lock'), removesDirectory: !place.ownDirectory };
  if (transport === 'kernel') return await mountKernel(place.path, { devices: deviceClones(), allowOther, end });
  const negotiated = { minor: 0, canResend: false, canPassThrough: false };
  return { mountpoint: place.path, deviceFds: [], aliveFd: null, negotiated };
}

/**
 * Releases a mount for good: processes that wait for its end see it. To be called when no server has its descriptors.
 */
export function releaseMount(mount: KernelMount): void {
  closeDevices(mount);
  if (mount.aliveFd !== null) closeSync(mount.aliveFd);
  mount.aliveFd = null;
}

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
