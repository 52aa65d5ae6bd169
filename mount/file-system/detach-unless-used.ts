/**
 * Detaches a vbd after its mount is gone. The loop device or program of the mount may use the vbd a while longer, to
 * write back: this waits for it. If anything else uses the vbd, the vbd stays attached.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { eachProcess, listOpenFiles } from '../../system/proc.js';
import { type BusPlace, describeHolders, detach } from '../client/index.js';
import type { DetachResult } from '../control/interface.js';
import type { FileMount } from './file-mounts.js';
import type { Pin } from './pin.js';
import { QUIET_MS, type TellWait } from './tools/run-tool.js';

const POLL_MS = 100;
/** a program that only probes the vbd, as udev does, is gone within this time */
const PASSING_MS = 5_000;
/** how long the bus waits until the pin is closed */
const CLOSING_SECONDS = 5;
/** after this time, a request is in the socket of the bus */
const SENDING_MS = 10;

export interface DetachTelling {
  readonly waits?: TellWait | undefined;
  /** is called if a vbd stays attached, and told whether only programs use it, not a device or mount */
  readonly keeps?: ((text: string, isByProgram: boolean) => void) | undefined;
}

/** A vbd whose mount is gone. */
export interface UnmountedVbd {
  readonly place: BusPlace;
  readonly vdev: string;
  /** its bus detaches it when nobody uses it any more */
  readonly isMarked: boolean;
  /** keeps it attached until this detaches it, so that the result can be reported; closed in any case */
  readonly pin: Pin | null;
  readonly isOwn: IsOwn;
}

/** Whether a user of a vbd is there only for one mount and will be gone after it. */
export type IsOwn = (holder: Holder) => boolean;

/** Finds the users of a vbd that belong to a mount. Call it while the mount is there. */
export async function findOwnHolders({ file, loop }: Pick<FileMount, 'file' | 'loop'>): Promise<IsOwn> {
  if (loop !== null) {
    const goes = goesWithItsMount(loop);
    return (holder) => goes && holder.loop === loop && holder.mount === undefined;
  }
  const programs = new Set<number>();
  for await (const pid of eachProcess()) {
    const paths = new Set(listOpenFiles(pid).map(({ path }) => path));
    if (paths.has(file) && paths.has('/dev/fuse')) programs.add(pid);
  }
  return ({ pid }) => pid !== undefined && programs.has(pid);
}

/**
 * Whether the loop device is removed with its mount. A loop device that a user made stays until the user removes it.
 */
function goesWithItsMount(loop: string): boolean {
  try {
    return readFileSync(`/sys/block/${basename(loop)}/loop/autoclear`, 'utf8').trim() === '1';
  } catch {
    // gone already
    return true;
  }
}

/** @returns the detached vbd; nothing if others use it, or if it is detached already */
export async function detachUnlessUsed(vbd: UnmountedVbd, telling: DetachTelling): Promise<DetachResult> {
  try {
    return await tryUntilUnused(vbd, telling);
  } finally {
    await vbd.pin?.close();
  }
}

async function tryUntilUnused(vbd: UnmountedVbd, { waits, keeps }: DetachTelling): Promise<DetachResult> {
  const { place, vdev, isMarked } = vbd;
  const name = `${vdev} of bus ${place.name}`;
  const begun = performance.now();
  let isPinned = vbd.pin !== null;
  let isTold = false;
  let trying = tryDetach(place, vdev);
  for (;;) {
    const result = await trying;
    if ('vbds' in result) return result;
    const waitedMs = performance.now() - begun;
    const users = result.holders?.filter(({ pid }) => pid !== process.pid) ?? [];
    if (isPinned && users.length === 0 && result.holders !== null) {
      isPinned = false;
      trying = detachInsteadOfPin(vbd);
      continue;
    }
    const others = users.filter((holder) => !vbd.isOwn(holder));
    const isByProgram = others.every(({ pid }) => pid !== undefined);
    // a user that cannot be seen may be a device that is just being removed
    const isPassing = waitedMs < PASSING_MS && isByProgram && !(isMarked && others.length > 0);
    if ((others.length > 0 || users.length === 0) && !isPassing) {
      if (result.holders === null && !isMarked) throw result.error;
      const why = result.holders === null ? result.error.message : `it is in use by ${describeHolders(others)}`;
      const until = isMarked ? ' until nobody uses it' : '';
      keeps?.(`${name} stays attached${until}: ${why}`, isByProgram);
      return { vbds: [], ended: false };
    }
    if (!isTold && waitedMs > QUIET_MS) {
      isTold = true;
      waits?.(`waiting for ${describeHolders(users)} to close ${name}`);
    }
    await delay(POLL_MS);
    trying = tryDetach(place, vdev);
  }
}

/**
 * Closes the pin when the request is on its way. The bus waits for that; without the request, it could detach the vbd by
 * itself in between, and nobody would be told the result.
 */
async function detachInsteadOfPin({ place, vdev, pin }: UnmountedVbd): Promise<DetachResult | Refusal> {
  const trying = tryDetach(place, vdev, CLOSING_SECONDS);
  trying.catch(() => {});
  await delay(SENDING_MS);
  await pin?.close();
  return await trying;
}

/** Why a vbd was not detached: its users; null if it is not in use, but a command works on it, or its disk hangs. */
interface Refusal {
  readonly error: FusetapError;
  readonly holders: readonly Holder[] | null;
}

async function tryDetach(place: BusPlace, vdev: string, waitSeconds = 0): Promise<DetachResult | Refusal> {
  try {
    return await detach(place, vdev, { waitSeconds });
  } catch (error) {
    if (!(error instanceof FusetapError)) throw error;
    // somebody else, or the bus itself, was quicker
    if (error.code === 'NOT_FOUND') return { vbds: [], ended: false };
    if (error.code === 'BUSY') return { error, holders: error.holders ?? null };
    throw error;
  }
}
