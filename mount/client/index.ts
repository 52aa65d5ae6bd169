/**
 * What a program does with buses: attach, detach, start, stop, show and list. The command line calls nothing deeper.
 *
 * Each call returns when it is true: after `attach` the file was read, after `detach` and `stop` the data is durable
 * and, where the bus ended, its processes and its mount are gone.
 */
import { existsSync } from 'node:fs';
import { call } from '../control/call.js';
import { isNotRunning } from '../control/http-client.js';
import type { AttachRequest, AttachResult, BusInfo, BusWishes, DetachResult } from '../control/interface.js';
import type { Progress } from '../control/progress.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { Lifeline } from '../runtime/lifeline.js';
import { watchKeeper } from '../runtime/watch-bus-lock.js';
import { askEither } from './ask.js';
import { proveReadable } from './proving-read.js';

export type { Progress } from '../control/progress.js';
export { describeHolders } from '../holders/describe-holders.js';
export type { BusPlace } from '../runtime/bus-place.js';
export { realPlace, resolveBus, runtimeDir } from '../runtime/bus-place.js';
export { Lifeline } from '../runtime/lifeline.js';
export { showBus } from './ask.js';
export { findVbd, isPath } from './find-vbd.js';
export { type BusListing, listBuses } from './list-buses.js';
export { pause, resume } from './pause.js';
export { memory, reset, save } from './ram.js';

/** how long a keeper that was begun for an attach which failed gets to go away again */
const UNDONE_MS = 2_000;

export interface AttachOptions {
  /** gives up: what was begun is undone */
  readonly signal?: AbortSignal;
  /** is told how far the copy of a ram image is */
  readonly progress?: Progress;
  /** where this begins the bus, it is for this process alone and ends with it */
  readonly lifeline?: Lifeline;
}

/**
 * Attaches; begins the bus if need be. A bus begun so ends with its last vbd.
 * @param request its driver may be the path of a file, or the name of a package (see client/find-driver.ts)
 * @throws FusetapError what the bus answered; FAILED where the file cannot be read, it is then detached again
 */
export async function attach(
  place: BusPlace,
  request: AttachRequest,
  options: AttachOptions = {},
): Promise<AttachResult> {
  const body = await settleRequest(request);
  const { onRunningBus } = await import('./on-running-bus.js');
  const { lifeline, ...patience } = options;
  const ask = (): Promise<AttachResult> => call(place, 'POST /vbds', { body, ...patience });
  // a bus that was given up before it was asked does not end by itself: there is nothing to wait for
  const isAsked = (): boolean => !options.signal?.aborted;
  const askFirst = (began: boolean): Promise<AttachResult> => (began && isAsked() ? askOrSeeItEnd(place, ask) : ask());
  const notes: string[] = [];
  const { transport, allowOther } = request;
  const begin = { persistent: false, transport, allowOther, lifeline, note: (text: string) => void notes.push(text) };
  const vbd = await onRunningBus(place, begin, askFirst);
  try {
    await proveReadable(vbd.path);
  } catch (error) {
    await detach(place, vbd.vdev, { force: true }).catch(() => {});
    const { explainUnseen } = await import('./unseen-mount.js');
    throw (await explainUnseen(place, error)) ?? error;
  }
  return notes.length === 0 ? vbd : { ...vbd, notes: [...notes, ...(vbd.notes ?? [])] };
}

/** What is relative to this process made absolute: third-party drivers, files that filters watch. */
async function settleRequest(request: AttachRequest): Promise<AttachRequest> {
  const { driver, filters, ...rest } = request;
  const { findDriver } = await import('./find-driver.js');
  const settled: AttachRequest = { ...rest, driver: findDriver(driver, process.cwd) };
  // a bus of an older version need not know the word
  if (filters === undefined || filters.length === 0) return settled;
  const { settleFilters } = await import('./settle-filters.js');
  return { ...settled, filters: settleFilters(filters, process.cwd, { provesRead: true }) };
}

/** A bus that was begun for an attach which failed ends by itself, unless somebody else has come to use it. */
async function askOrSeeItEnd<Answer>(place: BusPlace, ask: () => Promise<Answer>): Promise<Answer> {
  const watch = watchKeeper(place);
  try {
    return await ask();
  } catch (error) {
    // the reason that the attach failed is worth more than that of this
    await watch.gone(UNDONE_MS).catch(() => {});
    throw error;
  } finally {
    watch.close();
  }
}

/** Of a detach, and of the end of a bus. */
export interface DetachOptions {
  /** what those who hold it have written is written back, and later I/O of theirs is EIO */
  readonly force?: boolean;
  /** how long to wait for those who hold it */
  readonly waitSeconds?: number | undefined;
}

/** Detaches. @throws FusetapError BUSY with the holders; NOT_FOUND */
export function detach(place: BusPlace, vdev: string, options: DetachOptions = {}): Promise<DetachResult> {
  const { force, waitSeconds } = options;
  const query = { ...(force && { force: '1' as const }), wait: waitSeconds?.toString() };
  return untilGone(place, () => askEither(place, 'DELETE /vbds/{vdev}', { vdev, query }));
}

export interface StartOptions extends BusWishes {
  /** is told what the user should know */
  note?: (text: string) => void;
}

/** Begins the bus, or lets one that runs stay without vbds. */
export async function start(place: BusPlace, options: StartOptions = {}): Promise<BusInfo> {
  const { onRunningBus } = await import('./on-running-bus.js');
  const { note, ...body } = options;
  const ask = (): Promise<BusInfo> => call(place, 'POST /start', { body });
  return onRunningBus(place, { persistent: true, ...body, note }, ask);
}

/**
 * Detaches all and ends the bus. What a dead bus left behind is cleared away.
 * @throws FusetapError BUSY with the holders; NOT_FOUND
 */
export async function stop(place: BusPlace, options: DetachOptions = {}): Promise<DetachResult> {
  const { force = false, waitSeconds: wait } = options;
  // a bus of an older version does not know the word
  const body = { force, ...(wait !== undefined && { wait }) };
  try {
    return await untilGone(place, () => askEither(place, 'POST /stop', { body }));
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    if (!(await isLeftBehind(place))) {
      await refuseForeignBus(place);
      throw error;
    }
  }
  // a keeper repairs what it finds when it starts, and removes all of it when it leaves
  await start(place);
  return untilGone(place, () => call(place, 'POST /stop', { body }));
}

/** @throws FusetapError BUSY where a bus of another runtime directory, or of another user, is mounted there */
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

/** Asks, and where the answer says that the bus ends, returns when it has. */
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
