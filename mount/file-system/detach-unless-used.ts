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
import type { TellWait } from './run-tool.js';

const POLL_MS = 100;
/** a program that only probes the vbd, as udev does, is gone within this time */
const PASSING_MS = 5_000;
/** after this time the user is told what the command waits for */
const QUIET_MS = 3_000;

export interface DetachTelling {
  readonly waits?: TellWait | undefined;
  /** is called if a vbd stays attached, and told whether only programs use it, not a device or mount */
  readonly keeps?: ((text: string, isByProgram: boolean) => void) | undefined;
}

/** The file below a mount, and its loop device. */
export interface FileBelow {
  readonly file: string;
  readonly loop: string | null;
}

/** Whether a user of a vbd is there only for one mount and will be gone after it. */
export type IsOwn = (holder: Holder) => boolean;

/** Finds the users of a vbd that belong to a mount. Call it while the mount is there. */
export async function findOwnHolders({ file, loop }: FileBelow): Promise<IsOwn> {
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

/** @returns the detached vbd; nothing if others use it */
export async function detachUnlessUsed(
  place: BusPlace,
  vdev: string,
  isOwn: IsOwn,
  { waits, keeps }: DetachTelling,
): Promise<DetachResult> {
  const begun = performance.now();
  let isTold = false;
  for (;;) {
    const holders = await tryDetach(place, vdev);
    if (!Array.isArray(holders)) return holders;
    const waitedMs = performance.now() - begun;
    const others = holders.filter((holder) => !isOwn(holder));
    const isByProgram = others.every(({ pid }) => pid !== undefined);
    // a user that cannot be seen may be a device that is just being removed
    const arePassing = waitedMs < PASSING_MS && (isByProgram || holders.length === 0);
    if ((others.length > 0 || holders.length === 0) && !arePassing) {
      keeps?.(`${vdev} of bus ${place.name} stays attached: it is in use by ${describeHolders(others)}`, isByProgram);
      return { vbds: [], ended: false };
    }
    if (!isTold && waitedMs > QUIET_MS) {
      isTold = true;
      waits?.(`waiting for ${describeHolders(holders)} to close ${vdev} of bus ${place.name}`);
    }
    await delay(POLL_MS);
  }
}

/** @returns the users of the vbd if it was not detached */
async function tryDetach(place: BusPlace, vdev: string): Promise<DetachResult | Holder[]> {
  try {
    return await detach(place, vdev);
  } catch (error) {
    if (error instanceof FusetapError && error.code === 'BUSY' && error.holders !== undefined) return error.holders;
    throw error;
  }
}
