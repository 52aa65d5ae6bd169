/** What a vbd has over its base: where that is, and how it gets into the base. */
import type { Change } from '../../../drivers/driver.js';
import { call } from '../../control/call.js';
import type { CommitResult } from '../../control/interface.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import { explainOlderBus } from '../follow.js';
import type { CopyOptions } from '../ram.js';

export type { Change };

/**
 * The ranges in which a vbd differs from its base, in order. Programs that write meanwhile may change what is listed later.
 * @throws FusetapError UNSUPPORTED if the vbd is no snapshot, or if the bus is older
 */
export async function* changes(place: BusPlace, vdev: string, signal?: AbortSignal): AsyncGenerator<Change, void> {
  for (let offset: number | null = 0; offset !== null; ) {
    const { changes: found, next } = await ask(place, { vdev, offset, signal });
    yield* found;
    if (next !== null && next <= offset) throw new RangeError(`changes from ${offset} on are followed by ${next}`);
    offset = next;
  }
}

interface Asked {
  readonly vdev: string;
  readonly offset: number;
  readonly signal: AbortSignal | undefined;
}

async function ask(place: BusPlace, { vdev, offset, signal }: Asked) {
  try {
    return await call(place, 'GET /vbds/{vdev}/changes', { vdev, query: { offset: String(offset) }, signal });
  } catch (error) {
    throw explainOlderBus(place, error);
  }
}

/**
 * Moves what a vbd has over its base into the base, durable. Programs that have the vbd open go on. If it fails or is
 * cancelled, the vbd is as before; what was moved stays in the base.
 * @throws FusetapError UNSUPPORTED if it has no base that can be written, or if the bus is older; USAGE if it is not
 *   attached with mode w, or is paused; BUSY if somebody else uses the base; NO_SPACE
 */
export async function commit(place: BusPlace, vdev: string, options: CopyOptions = {}): Promise<CommitResult> {
  try {
    return await call(place, 'POST /vbds/{vdev}/commit', { vdev, ...options });
  } catch (error) {
    throw explainOlderBus(place, error);
  }
}
