/**
 * When the unit of a bus is being stopped, as at a shutdown, what uses the bus is often stopped at the same time: systemd
 * orders the stop of its units, but a mount by hand has no order. So the bus goes on until nobody uses it, for a limited
 * time. A loop device that nothing uses does not count: it stays until somebody detaches it.
 */
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Holder } from '../../drivers/errors.js';
import { listDevicesAbove, listLoops, listSwaps, mountOn, readDeviceFamily } from '../../system/proc.js';
import { findOwnStop, type UnitStop } from '../../system/systemd.js';
import { within } from '../../system/within.js';
import { describeHolders } from '../holders/describe-holders.js';
import { findHoldersOf, findVbdHolders, type HeldFile } from '../holders/find-holders.js';
import { readMilliseconds } from '../runtime/environment.js';
import { logEvent } from '../runtime/log.js';
import { findAbove } from './above.js';
import { flushLimitMs } from './limit.js';

const DEFAULT_LIMIT_MS = 60_000;
const VARIABLE = 'FUSETAP_USERS_LIMIT_MS';
const POLL_MS = 500;
/** what the rest of an ending takes besides its flushes */
const REST_MS = 10_000;

/** How long a bus may wait for its users when its unit is stopped. */
export class UsersLimit {
  readonly #wishedMs: number;

  /** @throws FusetapError USAGE if the variable is not a number of milliseconds */
  constructor() {
    this.#wishedMs = readMilliseconds(VARIABLE, DEFAULT_LIMIT_MS);
  }

  /** The time until systemd kills is for the flushes first (limit.ts). A session and most services have 90 s. */
  msFor({ limitMs }: UnitStop): number {
    return Math.max(0, Math.min(this.#wishedMs, limitMs - flushLimitMs() - REST_MS));
  }
}

export interface UsersWait {
  /** the files in use at this time */
  files(): Promise<readonly HeldFile[]>;
  readonly runtimeDir: string;
  /** ends the wait */
  readonly signal?: AbortSignal;
}

/**
 * If the unit of this process is being stopped, resolves when nobody uses the files any more, or after the limit; else at once.
 * Never rejects.
 */
export async function awaitUsersAtStop(limit: UsersLimit, wait: UsersWait): Promise<void> {
  const stop = await findOwnStop();
  if (stop !== null) await awaitUsersGone(wait, limit.msFor(stop));
}

async function awaitUsersGone({ files, runtimeDir, signal }: UsersWait, limitMs: number): Promise<void> {
  const deadline = performance.now() + limitMs;
  let told = '';
  for (let left = limitMs; left > 0 && signal?.aborted !== true; left = deadline - performance.now()) {
    const looked = files()
      .then((found) => findActiveUsers(found, runtimeDir))
      // not known: look again
      .catch(() => null);
    const users = await within(looked, left, null);
    if (users?.length === 0) return;
    const text = users === null ? told : describeHolders(users);
    if (text !== told) logEvent({ event: 'awaits-users', holders: text });
    told = text;
    await delay(POLL_MS, undefined, { ...(signal && { signal }) }).catch(() => {});
  }
}

async function findActiveUsers(files: readonly HeldFile[], runtimeDir: string): Promise<Holder[]> {
  if (files.length === 0) return [];
  const holders = (await findVbdHolders(files, runtimeDir)).flat();
  const isIdleLoop = ({ loop, mount }: Holder): boolean => loop !== undefined && mount === undefined;
  const loops = holders.filter(isIdleLoop).flatMap(({ loop }) => loop ?? []);
  const known = new Set(holders.map(({ mount }) => mount));
  // on device mapper, for example
  const mounts = (await findAbove(files)).mounts.filter(({ mountpoint }) => !known.has(mountpoint));
  return [
    ...holders.filter((holder) => !isIdleLoop(holder)),
    ...mounts.map(({ mountpoint }) => ({ mount: mountpoint })),
    ...(await findUsersOfLoops(loops)),
  ];
}

/** The programs that have loop devices, their partitions, or device mapper devices on them open; swap space on them. */
async function findUsersOfLoops(paths: readonly string[]): Promise<Holder[]> {
  const place = await mountOn('/dev');
  if (paths.length === 0 || place === undefined) return [];
  const devs = listLoops()
    .filter(({ path }) => paths.includes(path))
    .flatMap((loop) => loop.devs);
  const nodes = [...devs.flatMap((dev) => readDeviceFamily(dev)), ...listDevicesAbove(devs)];
  const names = [...new Set(nodes.map(({ name }) => `/dev/${name}`))];
  const found = await Promise.all(
    names.map(async (path): Promise<HeldFile[]> => {
      const node = await stat(path).catch(() => null);
      return node === null ? [] : [{ mountDev: place.dev, ino: node.ino, path }];
    }),
  );
  const users = (await findHoldersOf(found.flat())).flat();
  const swaps = listSwaps().filter((path) => names.includes(path));
  return [...users, ...swaps.map((path) => ({ loop: path, mount: 'swap' }))];
}
