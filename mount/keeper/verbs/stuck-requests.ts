/**
 * Requests that a disk does not answer. A thread that waits for the disk cannot be killed, so its server cannot exit.
 * To replace that server would stop all vbds until the disk answers.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../../drivers/errors.js';
import { blockedThreads, isThreadBlocked } from '../../../system/proc.js';
import type { BusParts } from '../vbds/bus-parts.js';

/** how long a request may wait in the kernel before it counts as stuck */
const STILL_MS = 5_000;
const LOOK_EVERY_MS = 50;

/**
 * Resolves when the requests that wait for a disk now have ended.
 * @throws FusetapError BUSY if they do not end in time
 */
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
  await refuseWhereReadsHang(bus, deadlineMs);
}

/** The reads for names have threads of their own, and no request in the ledger. */
async function refuseWhereReadsHang(bus: BusParts, deadlineMs: number): Promise<void> {
  const beganMs = performance.now();
  let waits = blockedThreads(bus.server.pid ?? 0);
  for (;;) {
    // an older server does not tell
    const oldestMs = await bus.server.request<'nameReads'>({ op: 'nameReads' }).then(
      (answer: { oldestMs: number } | undefined) => answer?.oldestMs ?? 0,
      () => 0,
    );
    if (oldestMs > STILL_MS) throw notAnswered(bus, 1);
    // reads that have begun since then are others
    const isReading = oldestMs > performance.now() - beganMs;
    if (waits.size === 0 && !isReading) return;
    if (performance.now() > deadlineMs && waits.size > 0) throw notAnswered(bus, waits.size);
    await delay(LOOK_EVERY_MS);
    const now = blockedThreads(bus.server.pid ?? 0);
    waits = new Set([...waits].filter((wait) => now.has(wait)));
  }
}

/** The numbers of the requests whose threads wait in the kernel. */
function blockedRequests({ ledger, server }: BusParts): Set<number> {
  const { pid } = server;
  if (pid === null) return new Set();
  const blocked = ledger.work().filter(({ tid }) => tid !== 0 && isThreadBlocked(pid, tid));
  return new Set(blocked.map(({ unique }) => unique));
}

function notAnswered({ place }: BusParts, count: number): FusetapError {
  const requests = count === 1 ? 'a request' : `${count} requests`;
  const message = `a disk of bus ${place.name} has not answered ${requests} for ${STILL_MS / 1000} s`;
  return new FusetapError('BUSY', `${message}: the server cannot be replaced`, {
    hint: 'try again when the disk answers; the old server keeps running',
  });
}
