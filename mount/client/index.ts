/**
 * The acts on buses: attach, detach, start, stop, show and list. What few commands need is in files of its own, which these
 * commands load: loading takes a good part of each command's time.
 *
 * Each call returns when its effect is proven: after `attach`, the file has been read; after `detach` and `stop`, the
 * data is durable and, if the bus ended, its processes and its mount are gone.
 */

import { existsSync } from 'node:fs';
import { defined } from '../../drivers/defined.js';
import { call } from '../control/call.js';
import { sentDisk } from '../control/disk-wish.js';
import { isNotRunning } from '../control/http-client.js';
import type { AttachRequest, AttachResult, BusInfo, BusWishes, DetachResult } from '../control/interface.js';
import type { Progress } from '../control/progress.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { Lifeline } from '../runtime/lifeline.js';
import { watchKeeper } from '../runtime/watch-bus-lock.js';
import { askEither } from './ask.js';
import { workingDirectory } from './finding/working-directory.js';
import { proveReadable, withDriverWords } from './proving-read.js';

export type { Progress } from '../control/progress.js';
export { describeHolders } from '../holders/describe-holders.js';
export type { BusPlace } from '../runtime/bus-place.js';
export { realPlace, resolveBus, runtimeDir } from '../runtime/bus-place.js';
export { Lifeline } from '../runtime/lifeline.js';
export { showBus } from './ask.js';
export { type BusListing, type BusTrouble, listBuses } from './list-buses.js';
export { pause, resume } from './pause.js';
export { type CopyOptions, memory, reset, save, saveToDisk } from './ram.js';

/** how long a keeper that was started for a failed attach may take to exit */
const UNDONE_MS = 2_000;

export interface AttachOptions {
  /** cancels the attach and undoes it */
  readonly signal?: AbortSignal;
  /** called with the progress of the copy of a ram image */
  readonly progress?: Progress;
  /** if this starts the bus, the bus is private to this process and ends with it */
  readonly lifeline?: Lifeline;
}

/**
 * Attaches; starts the bus if needed. A bus that attach started ends when its last vbd is detached.
 * @param request its driver may be the path of a file, or the name of a package (see client/find-driver.ts)
 * @throws FusetapError the error that the bus answered; FAILED if the file cannot be read: it is then detached again
 */
export async function attach(
  place: BusPlace,
  request: AttachRequest,
  options: AttachOptions = {},
): Promise<AttachResult> {
  const body = sentDisk(await settleRequest(request));
  const { onRunningBus } = await import('./on-running-bus.js');
  const { lifeline, ...patience } = options;
  const ask = (): Promise<AttachResult> => call(place, 'POST /vbds', { body, ...patience });
  // if the attach was cancelled before the bus was asked, the bus does not end by itself: do not wait for that
  const isAsked = (): boolean => !options.signal?.aborted;
  const askFirst = (began: boolean): Promise<AttachResult> => (began && isAsked() ? askOrSeeItEnd(place, ask) : ask());
  const notes: string[] = [];
  const { transport, allowOther } = request;
  const begin = { persistent: false, transport, allowOther, lifeline, note: (text: string) => void notes.push(text) };
  const vbd = await onRunningBus(place, begin, askFirst);
  try {
    await proveReadable(vbd.path);
    // it came too late to cancel the request
    options.signal?.throwIfAborted();
  } catch (failure) {
    const isCancelled = options.signal?.aborted;
    const error = isCancelled ? failure : await withDriverWords(place, vbd.vdev, failure);
    await detach(place, vbd.vdev, { force: true }).catch(() => {});
    if (isCancelled) throw error;
    const { explainUnseen } = await import('./troubles/unseen-mount.js');
    throw (await explainUnseen(place, error)) ?? error;
  }
  return notes.length === 0 ? vbd : { ...vbd, notes: [...notes, ...(vbd.notes ?? [])] };
}

/** Makes relative paths absolute: of third-party drivers, and of files that filters watch. */
async function settleRequest(request: AttachRequest): Promise<AttachRequest> {
  const { filters, ...rest } = request;
  const { withFoundDrivers } = await import('./disk-wish.js');
  const settled: AttachRequest = withFoundDrivers(rest, workingDirectory);
  // a bus of an older version may not know the key
  if (filters === undefined || filters.length === 0) return settled;
  const { settleFilters } = await import('./settle-filters.js');
  return { ...settled, filters: settleFilters(filters, workingDirectory, { provesRead: true }) };
}

/** If the attach fails, waits until the bus that was started for it has ended. It ends unless others use it by then. */
async function askOrSeeItEnd<Answer>(place: BusPlace, ask: () => Promise<Answer>): Promise<Answer> {
  const watch = watchKeeper(place);
  try {
    return await ask();
  } catch (error) {
    // the error of the attach matters more than an error of this wait
    await watch.gone(UNDONE_MS).catch(() => {});
    throw error;
  } finally {
    watch.close();
  }
}

/** Options of `detach` and `stop`. */
export interface DetachOptions {
  /** detach even if in use: writes of its users are written back, their later I/O fails with EIO */
  readonly force?: boolean;
  /** how long to wait first until it is not in use; default: not at all */
  readonly waitSeconds?: number | undefined;
}

/** Detaches a vbd. @throws FusetapError BUSY with the holders if it is in use; NOT_FOUND */
export function detach(place: BusPlace, vdev: string, options: DetachOptions = {}): Promise<DetachResult> {
  const { force, waitSeconds } = options;
  const query = { ...(force && { force: '1' as const }), wait: waitSeconds?.toString() };
  return untilGone(place, () => askEither(place, 'DELETE /vbds/{vdev}', { vdev, query }));
}

export interface StartOptions extends BusWishes {
  /** called with remarks for the user */
  note?: (text: string) => void;
}

/** Starts the bus, or makes a running bus stay when it has no vbds. */
export async function start(place: BusPlace, options: StartOptions = {}): Promise<BusInfo> {
  const { onRunningBus } = await import('./on-running-bus.js');
  const { note, ...body } = options;
  const ask = (): Promise<BusInfo> => call(place, 'POST /start', { body });
  return onRunningBus(place, { persistent: true, ...body, note }, ask);
}

/**
 * Detaches all vbds and ends the bus. Removes the remains of a dead bus.
 * @throws FusetapError BUSY with the holders if a vbd is in use; NOT_FOUND
 */
export async function stop(place: BusPlace, options: DetachOptions = {}): Promise<DetachResult> {
  const { force = false, waitSeconds: wait } = options;
  // a bus of an older version does not know the key
  const body = { force, ...defined({ wait }) };
  try {
    return await untilGone(place, () => askEither(place, 'POST /stop', { body }));
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    if (!(await isLeftBehind(place))) {
      await refuseForeignBus(place);
      throw error;
    }
  }
  // a keeper repairs the remains when it starts, and removes everything when it ends
  await start(place);
  return untilGone(place, () => call(place, 'POST /stop', { body }));
}

/** @throws FusetapError BUSY if a bus of another runtime directory, or of another user, is mounted there */
async function refuseForeignBus({ path }: BusPlace): Promise<void> {
  const { findLiveBus } = await import('../fuse/mounting/dead-mounts.js');
  const alive = await findLiveBus(path);
  if (alive === null) return;
  const { refuseLiveBus } = await import('../runtime/bus-owner.js');
  throw refuseLiveBus(path, alive);
}

async function isLeftBehind(place: BusPlace): Promise<boolean> {
  const watch = watchKeeper(place);
  try {
    await watch.gone();
  } finally {
    watch.close();
  }
  return existsSync(place.stateDir);
}

/** Asks; if the answer says that the bus ends, waits until it has ended. */
async function untilGone(place: BusPlace, ask: () => Promise<DetachResult>): Promise<DetachResult> {
  const watch = watchKeeper(place);
  try {
    const result = await ask();
    if (result.ended) await watch.gone();
    return result;
  } finally {
    watch.close();
  }
}
