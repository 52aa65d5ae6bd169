/** Where a vbd differs from its base: asked of the server, part by part. */
import { FusetapError } from '../../../drivers/errors.js';
import type { ChangesResult } from '../../control/interface.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';

/**
 * The first changes from an offset on.
 * @throws FusetapError UNSUPPORTED if the disk has no base
 */
export async function changes(bus: BusParts, vbd: Vbd, offset: number): Promise<ChangesResult> {
  const length = vbd.size - offset;
  if (length <= 0) return { changes: [], next: null };
  const asked = bus.server.request<'changes'>({ op: 'changes', nodeId: vbd.nodeId, offset, length });
  try {
    return await bus.images.whileAnswering(bus, vbd, asked);
  } catch (error) {
    throw error instanceof FusetapError && error.code === 'UNSUPPORTED' ? hasNoBase(vbd) : error;
  }
}

function hasNoBase({ vdev }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} is not a snapshot: there is no base that it could differ from`, {
    hint: 'attach the image with --snapshot, or compare two disks: fusetap diff VBD OTHER',
  });
}
