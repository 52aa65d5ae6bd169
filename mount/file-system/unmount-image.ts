/**
 * The reverse of mount-image.ts: unmounts file systems of a vbd, and detaches the vbd. The kernel knows the vbd (the source
 * of the mount, the file of its loop device), so no state is kept.
 */
import { listBuses } from '../client/list-buses.js';
import type { DetachResult, VbdInfo } from '../control/interface.js';
import { resolveBus } from '../runtime/bus-place.js';
import {
  type DetachTelling,
  detachUnlessUsed,
  findOwnHolders,
  type IsOwn,
  type UnmountedVbd,
} from './detach-unless-used.js';
import { removeDirectory } from './directories.js';
import { type Attached, findMounts, type VbdMount } from './find-mounts.js';
import { Pin } from './pin.js';
import { unmountDirectory } from './tools/unmount-directory.js';

/** a vbd that cannot be opened within this time is detached without a pin */
const PIN_MS = 1_000;

/**
 * Unmounts what a word means, and detaches the vbd unless it is still in use, for example by a mount of another partition.
 * @param word see find-mounts.ts
 * @throws FusetapError NOT_FOUND if no vbd is mounted there, BUSY if the mount is in use; it is mounted then
 */
export async function unmountImage(
  word: string,
  runtimeDir: string,
  telling: DetachTelling = {},
): Promise<DetachResult> {
  const mounts = await findMounts(word, await listAttached(runtimeDir));
  const vbds = await prepare(mounts, runtimeDir);
  try {
    // the last mounted first: it may be below another
    for (const mount of mounts.reverse()) {
      await unmountDirectory(mount, telling.waits);
      if (mount.isBelow) removeDirectory(mount.mountpoint);
      const { deadBus } = mount;
      if (deadBus !== null) telling.keeps?.(`bus ${deadBus} is dead: fusetap stop --bus ${deadBus} removes it`, true);
    }
  } catch (error) {
    for (const { pin } of vbds) await pin?.close();
    throw error;
  }
  const results = await Promise.all(vbds.map((vbd) => detachUnlessUsed(vbd, telling)));
  return { vbds: results.flatMap(({ vbds }) => vbds), ended: results.some(({ ended }) => ended) };
}

async function listAttached(runtimeDir: string): Promise<Attached> {
  const { buses, troubles } = await listBuses(runtimeDir);
  const deadBuses = new Map<string, string>();
  for (const { bus } of troubles) {
    const place = await resolveBus(bus, runtimeDir).catch(() => null);
    if (place !== null) deadBuses.set(place.path, bus);
  }
  return { vbds: buses.flatMap(({ vbds }) => vbds), deadBuses, runtimeDir };
}

/** The vbds of the mounts, each once. Call it while the mounts are there. */
async function prepare(mounts: readonly VbdMount[], runtimeDir: string): Promise<UnmountedVbd[]> {
  const byPath = new Map<string, { vbd: VbdInfo; own: IsOwn[] }>();
  for (const mount of mounts) {
    if (mount.vbd === null) continue;
    const known = byPath.get(mount.vbd.path) ?? { vbd: mount.vbd, own: [] };
    known.own.push(await findOwnHolders(mount));
    byPath.set(mount.vbd.path, known);
  }
  return await Promise.all(
    [...byPath.values()].map(async ({ vbd, own }) => ({
      place: await resolveBus(vbd.bus, runtimeDir),
      vdev: vbd.vdev,
      isMarked: vbd.detachesWhenUnused ?? false,
      pin: vbd.detachesWhenUnused ? await Pin.tryOpen(vbd.path, PIN_MS) : null,
      isOwn: (holder) => own.some((isOwn) => isOwn(holder)),
    })),
  );
}
