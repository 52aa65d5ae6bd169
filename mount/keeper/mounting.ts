/**
 * The mount of a bus. It is made when the bus starts, and again when a bus that was given up is started again.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { closeDevices, type KernelMount, mountKernel } from '../fuse/mounting/device.js';
import { deviceClones } from '../fuse/protocol/thread-counts.js';
import type { BusParts } from './vbds/bus-parts.js';

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
