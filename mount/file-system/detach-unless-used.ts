/**
 * Detaching a vbd after its mount is gone: who served the mount may hold the vbd a while longer, as it writes back, and is
 * waited for. Whoever else holds it uses it for something else, and keeps it.
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
/** a program that only looks at the vbd, as udev does, is gone within this time */
const PASSING_MS = 5_000;
/** after so long who waits is told what for */
const QUIET_MS = 3_000;

export interface DetachTelling {
  readonly waits?: TellWait | undefined;
  /** is told that a vbd stays attached, and whether only programs hold it, no device or mount */
  readonly keeps?: ((text: string, isByProgram: boolean) => void) | undefined;
}

/** What a mount is of. */
export interface FileBelow {
  readonly file: string;
  readonly loop: string | null;
}

/** Tells whether a holder of a vbd is there only for one mount, and goes after it. */
export type IsOwn = (holder: Holder) => boolean;

/** To be asked while the mount is there. */
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

/** A loop device that somebody made by hand stays until he takes it away. */
function goesWithItsMount(loop: string): boolean {
  try {
    return readFileSync(`/sys/block/${basename(loop)}/loop/autoclear`, 'utf8').trim() === '1';
  } catch {
    // gone already
    return true;
  }
}

/** @returns what went: nothing where others use the vbd */
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
    // of whom nobody can be seen may be a device that is just being taken away
    const arePassing = waitedMs < PASSING_MS && (isByProgram || holders.length === 0);
    if ((others.length > 0 || holders.length === 0) && !arePassing) {
      keeps?.(`${vdev} of bus ${place.name} stays attached: it is in use by ${describeHolders(others)}`, isByProgram);
      return { vbds: [], ended: false };
    }
    if (!isTold && waitedMs > QUIET_MS) {
      isTold = true;
      waits?.(`waiting for ${describeHolders(holders)} to let go of ${vdev} of bus ${place.name}`);
    }
    await delay(POLL_MS);
  }
}

/** @returns those who hold it, where it was not detached */
async function tryDetach(place: BusPlace, vdev: string): Promise<DetachResult | Holder[]> {
  try {
    return await detach(place, vdev);
  } catch (error) {
    if (error instanceof FusetapError && error.code === 'BUSY' && error.holders !== undefined) return error.holders;
    throw error;
  }
}
