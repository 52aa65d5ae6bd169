/**
 * Waits until a bus is gone. Its keeper has a lock as long as it lives, so the lock shows when the keeper is gone,
 * whatever happened to its files and whichever process its parent is.
 */
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { until } from '../../system/until.js';
import type { BusPlace } from './bus-place.js';

const POLL_MS = 5;
const LIMIT_MS = 15_000;

/** Watches a running keeper. Open it before the keeper is asked to end, because the keeper removes its lock file. */
export interface Deathwatch {
  /** Returns when the keeper is gone. @throws FusetapError FAILED after `limitMs` */
  gone(limitMs?: number): Promise<void>;
  close(): void;
}

export function watchKeeper(place: BusPlace): Deathwatch {
  const fd = openLock(place);
  return {
    gone: (limitMs = LIMIT_MS) => (fd === undefined ? Promise.resolve() : waitForLock(place, fd, limitMs)),
    close: () => {
      if (fd !== undefined) closeSync(fd);
    },
  };
}

/** Whether a keeper or an orphaned server has the bus. Does not ask the process, which may not answer. */
export async function isKeeperAlive(place: BusPlace): Promise<boolean> {
  const fd = openLock(place);
  if (fd === undefined) return false;
  try {
    const { flockRelease, tryFlockExclusive } = await import('../../system/libc.js');
    if (!tryFlockExclusive(fd)) return true;
    flockRelease(fd);
    return false;
  } finally {
    closeSync(fd);
  }
}

/** undefined if there is no lock file, and so no keeper */
function openLock(place: BusPlace): number | undefined {
  try {
    return openSync(join(place.stateDir, 'lock'), 'r');
  } catch {
    return undefined;
  }
}

async function waitForLock(place: BusPlace, fd: number, limitMs: number): Promise<void> {
  const { flockRelease, tryFlockExclusive } = await import('../../system/libc.js');
  if (!(await until(() => tryFlockExclusive(fd), { timeoutMs: limitMs, everyMs: POLL_MS }))) {
    throw new FusetapError('FAILED', `bus ${place.name} is still there after ${limitMs / 1000} s: ${place.path}`, {
      hint: `see ${join(place.stateDir, 'log')}`,
    });
  }
  // release it at once: until then a new keeper of this bus would take us for another keeper
  flockRelease(fd);
}
