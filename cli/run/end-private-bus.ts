/** Ends the bus of `fusetap run`. Whatever happened, nothing of the bus is left, and errors are reported. */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { type BusPlace, stop } from '../../mount/client/index.js';
import type { DetachResult } from '../../mount/control/interface.js';
import { flushError } from '../detach-each.js';

/** background processes of the command may be about to end */
const PATIENCE_MS = 2_000;

/**
 * Detaches all vbds; by force if one is still in use.
 * @throws FusetapError BUSY with the users, after the bus is gone; FAILED if a flush failed
 */
export async function endPrivateBus(place: BusPlace): Promise<void> {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    try {
      const result = await stop(place);
      checkFlushes(result);
      // an attach that was given up may not have ended yet
      if (result.ended || Date.now() > deadline) return;
    } catch (error) {
      // the command detached its disks itself, and the bus ended with the last one
      if (isCode(error, 'NOT_FOUND')) return;
      if (!isCode(error, 'BUSY')) throw error;
      if (Date.now() > deadline) return endByForce(place, error);
    }
    await delay(100);
  }
}

async function endByForce(place: BusPlace, { message, holders }: FusetapError): Promise<void> {
  checkFlushes(await stop(place, { force: true }));
  throw new FusetapError('BUSY', `the command left its disks in use; they were detached by force: ${message}`, {
    hint: 'the command should wait for the processes that it starts, and unmount what it mounts',
    holders,
  });
}

function checkFlushes({ vbds }: DetachResult): void {
  for (const vbd of vbds) if (vbd.error) throw flushError(vbd, vbd.error);
}

function isCode(error: unknown, code: FusetapError['code']): error is FusetapError {
  return error instanceof FusetapError && error.code === code;
}
