/**
 * Gets the vbd for a mount: one that is attached already, else a new one. While a mount works with it, it is pinned:
 * nobody can detach it, and other mounts of it wait.
 *
 *      found ──► pinned ──► looked at again ──► joined
 *        │         └─► it is just being detached: look again
 *        └─ none ──► attached ──► pinned ──► marked: the bus detaches it when nobody uses it any more
 *                       └─► BUSY: another mount was quicker: look again
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { builtin } from '../../system/builtin.js';
import { mountOn } from '../../system/proc.js';
import { describeDisk } from '../client/disk-wish.js';
import { type AttachOptions, attach, detach, showBus } from '../client/index.js';
import type { AttachRequest, AttachResult, VbdInfo } from '../control/interface.js';
import { type BusPlace, resolveBus } from '../runtime/bus-place.js';
import { detachWhenUnused } from './detach-when-unused.js';
import { type FoundDisk, findDisks, isAttached, PRIVATE_SHARE } from './find-disk.js';
import { Pin } from './pin.js';
import type { TellWait } from './tools/run-tool.js';

/** a mount program that has just failed may use the vbd a moment longer */
const UNDO_SECONDS = 10;
const POLL_MS = 100;
/** how long an image may be claimed by a bus that does not list the vbd: it is being attached */
const ATTACHING_MS = 30_000;

/** A pinned vbd. */
export interface Disk {
  readonly place: BusPlace;
  readonly vbd: AttachResult;
  /** the partition that the request named by its path; null if it named the image */
  readonly partition: FoundDisk['partition'];
  readonly pin: Pin;
  /** this mount attached it */
  readonly isNew: boolean;
}

export interface DiskRequest {
  /** of a new vbd */
  readonly place: BusPlace;
  readonly attach: AttachRequest;
  readonly options: AttachOptions;
  readonly waits: TellWait | undefined;
}

/**
 * Takes the first vbd that fits, else attaches a new one.
 * @param use is called with each vbd that fits. BUSY means for a private copy of a ram image: take another one
 * @throws FusetapError; errors of `use`. Everything is undone then
 */
export async function takeDisk<Result>(request: DiskRequest, use: (disk: Disk) => Promise<Result>): Promise<Result> {
  const { attach: wish, place, waits } = request;
  const isPrivate = wish.driver === 'ram' && typeof wish.share !== 'string';
  let busySinceMs: number | null = null;
  for (;;) {
    let isLeaving = false;
    for (const found of await findDisks(wish, place.runtimeDir)) {
      const disk = await join(found, place.runtimeDir, waits);
      if (disk === 'leaving') isLeaving = true;
      if (typeof disk === 'string') continue;
      try {
        return await use(disk);
      } catch (error) {
        if (!(isPrivate && found.partition === null && isBusy(error))) throw error;
      } finally {
        await disk.pin.close();
      }
    }
    if (!isLeaving) {
      const disk = await attachNew(request, isPrivate).catch(async (error: unknown) => {
        busySinceMs ??= performance.now();
        const isSoon = performance.now() - busySinceMs < ATTACHING_MS && (await isAttaching(error, wish, place));
        if (isSoon) return null;
        throw error;
      });
      if (disk !== null) return await useNew(disk, use);
    }
    await delay(POLL_MS);
  }
}

/** Whether the image is claimed by a bus, and the next look may find a vbd to join, or none any more. */
async function isAttaching(error: unknown, wish: AttachRequest, { runtimeDir }: BusPlace): Promise<boolean> {
  if (!isBusy(error) || !(error as FusetapError).holders?.some(({ bus }) => bus !== undefined)) return false;
  return (await findDisks(wish, runtimeDir)).length > 0 || !(await isAttached(wish.image, runtimeDir));
}

function isBusy(error: unknown): boolean {
  return error instanceof FusetapError && error.code === 'BUSY';
}

/** @returns `leaving` if it is being detached; `gone` if it cannot be used from here */
async function join(
  { vbd, partition }: FoundDisk,
  runtimeDir: string,
  waits: TellWait | undefined,
): Promise<Disk | 'leaving' | 'gone'> {
  const place = await resolveBus(vbd.bus, runtimeDir);
  // the bus may be in another mount namespace
  if ((await mountOn(place.path)) === undefined) return 'gone';
  const pin = await Pin.open(vbd.path);
  if (pin === null) return 'leaving';
  try {
    await pin.lock(named(vbd.image ?? vbd.path), waits);
    const now = (await showBus(place)).vbds.find((one) => isSameVbd(one, vbd));
    if (now !== undefined) return { place, vbd: now, partition, pin, isNew: false };
  } catch (error) {
    await pin.close();
    throw error;
  }
  await pin.close();
  return 'leaving';
}

function isSameVbd(one: VbdInfo, other: VbdInfo): boolean {
  const isSameDisk = describeDisk(one) === describeDisk(other) && one.size === other.size;
  return one.vdev === other.vdev && one.share === other.share && isSameDisk;
}

async function attachNew({ place, attach: wish, options, waits }: DiskRequest, isPrivate: boolean): Promise<Disk> {
  const share = isPrivate ? { share: `${PRIVATE_SHARE}${builtin.crypto.randomBytes(6).toString('hex')}` } : {};
  const vbd = await attach(place, { ...wish, ...share, partitions: true }, options);
  try {
    const pin = await Pin.open(vbd.path);
    if (pin === null) throw new FusetapError('FAILED', `${vbd.vdev} of bus ${place.name} was detached meanwhile`);
    try {
      await pin.lock(named(vbd.image ?? vbd.path), waits);
      await detachWhenUnused(place, vbd.vdev);
    } catch (error) {
      await pin.close();
      throw error;
    }
    return { place, vbd, partition: null, pin, isNew: true };
  } catch (error) {
    await undo(place, vbd);
    throw error;
  }
}

async function useNew<Result>(disk: Disk, use: (disk: Disk) => Promise<Result>): Promise<Result> {
  try {
    const result = await use(disk);
    await disk.pin.close();
    return result;
  } catch (error) {
    await disk.pin.close();
    await undo(disk.place, disk.vbd);
    throw error;
  }
}

/** Detaches a vbd after a failure. If another mount uses it by now, it stays, and goes with that mount. */
async function undo(place: BusPlace, { vdev }: VbdInfo): Promise<void> {
  // ignore an error of the detach: the error of the mount is more important
  await detach(place, vdev, { waitSeconds: UNDO_SECONDS }).catch(() => {});
}
