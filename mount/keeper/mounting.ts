/**
 * The mount of a bus: made when the bus begins, and again where one that was given up is to serve what its keeper holds.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { closeDevices, type KernelMount, mountKernel } from '../fuse/mounting/device.js';
import { totalThreads } from '../fuse/protocol/thread-counts.js';
import type { BusParts } from './vbds/bus-parts.js';

type Mounted = Pick<BusParts, 'place' | 'transport' | 'allowOther'>;

/** Mounts; with transport fuse-native the server does, and the keeper has nothing of it. */
export async function mountBus({ place, transport, allowOther }: Mounted): Promise<KernelMount> {
  const end = { lockPath: join(place.stateDir, 'lock'), removesDirectory: !place.ownDirectory };
  if (transport === 'kernel') return await mountKernel(place.path, { threads: totalThreads(), allowOther, end });
  const negotiated = { minor: 0, canResend: false, canPassThrough: false };
  return { mountpoint: place.path, deviceFds: [], aliveFd: null, negotiated };
}

/** Lets go of a mount for good: whoever waits for its end sees it. To be called once no server has anything of it. */
export function releaseMount(mount: KernelMount): void {
  closeDevices(mount);
  if (mount.aliveFd !== null) closeSync(mount.aliveFd);
  mount.aliveFd = null;
}

/**
 * Makes what the keeper knows that of a bus that has just been mounted: nobody has anything open, nothing is under way, and
 * the kernel knows no files to pass through.
 * @param register see AttachContext
 */
export function prepareRemount({ ledger, vbds }: BusParts, register: (fd: number) => number): void {
  ledger.clearHandles();
  ledger.takeInFlight();
  for (const vbd of vbds.all()) {
    vbd.leaving = false;
    for (const partition of vbd.partitions ?? []) partition.leaving = false;
    const fd = vbd.source.image?.fd ?? vbd.source.memory?.fd;
    if (vbd.backingId === null || fd === undefined) continue;
    const id = register(fd);
    // whatever the kernel has against it now: threads do as well
    vbd.backingId = id > 0 ? id : null;
  }
}
