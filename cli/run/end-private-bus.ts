/** The end of the bus that `fusetap run` made: whatever happened, nothing of it is left, and what went wrong is said. */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { type BusPlace, stop } from '../../mount/client/index.js';
import type { DetachResult } from '../../mount/control/interface.js';
import { flushError } from '../detach-each.js';

/** what the command left in the background may be about to end */
const PATIENCE_MS = 2_000;

/**
 * Detaches all; where something still holds a vbd, by force.
 * @throws FusetapError BUSY with the holders, after the bus is gone; FAILED where a flush failed
 */
export async function endPrivateBus(place: BusPlace): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const result = await stop(place);
      checkFlushes(result);
      // an attach that was given up may still be on its way out
      if (result.ended || Date.now() > deadline) return;
    } catch (error) {
      // the command detached its disks itself, and the bus went with the last one
      if (isCode(error, 'NOT_FOUND')) return;
      if (!isCode(error, 'BUSY')) throw error;
      if (Date.now() > deadline) return endByForce(place, error);
    }
    await delay(100);
  }
}

async function endByForce(place: BusPlace, { message, holders }: FusetapError): Promise<void> {
  checkFlushes(await stop(place, { force: true }));
  throw new FusetapError('BUSY', `the command left its disks in use, they were detached by force: ${message}`, {
    hint: 'let the command wait for what it starts, and unmount what it mounts',
    holders,
  });
}

function checkFlushes({ vbds }: DetachResult): void {
  for (const vbd of vbds) if (vbd.error) throw flushError(vbd, vbd.error);
}

function isCode(error: unknown, code: FusetapError['code']): error is FusetapError {
  return error instanceof FusetapError && error.code === code;
}
