/**
 * Requests that a disk does not answer. The thread that does one cannot be ended, so neither can its server: to replace that
 * would stop all vbds until the disk answers.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../../drivers/errors.js';
import { isThreadBlocked } from '../../../system/proc.js';
import type { BusParts } from '../vbds/bus-parts.js';

/** for how long a request may stand still in the kernel before it counts */
const STILL_MS = 5_000;
const LOOK_EVERY_MS = 50;

/** Resolves at once where no request waits for a disk, else when those that do so now have ended. @throws FusetapError BUSY */
export async function refuseWhereStuck(bus: BusParts): Promise<void> {
  await Promise.all(bus.vbds.all().map((vbd) => bus.images.mustAnswer(bus, vbd)));
  const deadlineMs = performance.now() + STILL_MS;
  let stuck = blockedRequests(bus);
  while (stuck.size > 0) {
    if (performance.now() > deadlineMs) throw notAnswered(bus, stuck.size);
    await delay(LOOK_EVERY_MS);
    const now = blockedRequests(bus);
    stuck = new Set([...stuck].filter((unique) => now.has(unique)));
  }
}

/** The requests whose threads wait in the kernel, by number. */
function blockedRequests({ ledger, server }: BusParts): Set<number> {
  const { pid } = server;
  if (pid === null) return new Set();
  const blocked = ledger.work().filter(({ tid }) => tid !== 0 && isThreadBlocked(pid, tid));
  return new Set(blocked.map(({ unique }) => unique));
}

function notAnswered({ place }: BusParts, count: number): FusetapError {
  const requests = count === 1 ? 'a request' : `${count} requests`;
  const message = `a disk of bus ${place.name} has not answered ${requests} for ${STILL_MS / 1000} s: its server cannot be ended`;
  return new FusetapError('BUSY', message, { hint: 'try again when the disk answers; the old server serves on' });
}
