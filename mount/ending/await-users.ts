/**
 * When the unit of a bus is being stopped, as at a shutdown, what uses the bus is often stopped at the same time: systemd
 * orders the stop of its units, but a mount by hand has no order. So the bus goes on until nobody uses it, for a limited
 * time. A loop device that nothing uses does not count: it stays until somebody detaches it.
 */
import { stat } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import type { Holder } from '../../drivers/errors.js';
import { mountOn } from '../../system/proc.js';
import { describeHolders } from '../holders/describe-holders.js';
import { findHolders, findVbdHolders, type HeldFile } from '../holders/find-holders.js';
import { readMilliseconds } from '../runtime/environment.js';
import { logEvent } from '../runtime/log.js';
import { findAbove } from './above.js';

/** with the time for the flushes (limit.ts), this is below the time after which systemd kills (systemd/bus-scope.ts) */
const DEFAULT_LIMIT_MS = 60_000;
const VARIABLE = 'FUSETAP_USERS_LIMIT_MS';
const POLL_MS = 500;

/**
 * Resolves when nobody uses the files any more, or after the limit. Never rejects.
 * @param files the files in use at this time
 */
export async function awaitUsersGone(files: () => Promise<readonly HeldFile[]>, runtimeDir: string): Promise<void> {
  const deadline = performance.now() + readMilliseconds(VARIABLE, DEFAULT_LIMIT_MS);
  let told = '';
  while (performance.now() < deadline) {
    const users = await findActiveUsers(await files(), runtimeDir).catch(() => []);
    if (users.length === 0) return;
    const text = describeHolders(users);
    if (text !== told) logEvent({ event: 'awaits-users', holders: text });
    told = text;
    await delay(POLL_MS);
  }
}

async function findActiveUsers(files: readonly HeldFile[], runtimeDir: string): Promise<Holder[]> {
  if (files.length === 0) return [];
  const holders = (await findVbdHolders(files, runtimeDir)).flat();
  const { mounts } = await findAbove(files);
  const active = await Promise.all(holders.map(async (holder) => ((await isActive(holder)) ? [holder] : [])));
  const known = new Set(holders.map(({ mount }) => mount));
  // on device mapper, for example
  const others = mounts.filter(({ mountpoint }) => !known.has(mountpoint));
  return [...active.flat(), ...others.map(({ mountpoint }) => ({ mount: mountpoint }))];
}

/** A loop device without a mount is active if a process has it open. */
async function isActive({ loop, mount }: Holder): Promise<boolean> {
  if (loop === undefined || mount !== undefined) return true;
  const [node, place] = await Promise.all([stat(loop).catch(() => null), mountOn('/dev')]);
  if (node === null || place === undefined) return false;
  return (await findHolders({ mountDev: place.dev, ino: node.ino, path: loop })).length > 0;
}
