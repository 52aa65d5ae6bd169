/** Refuses what would wait for itself: a copy of a vbd to a file system that is mounted from the vbd, which is paused. */
import { FusetapError } from '../../../drivers/errors.js';
import { findAbove } from '../../ending/above.js';
import { heldFiles } from '../../ending/write-back.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { filesOf } from '../vbds/vbd-files.js';

/** @param devices of the target, as `MAJOR:MINOR` @throws FusetapError BUSY */
export async function refuseAbove(bus: BusParts, vbd: Vbd, devices: readonly string[]): Promise<void> {
  const { mounts } = await findAbove(await heldFiles(bus, filesOf(vbd)));
  const own = mounts.find(({ dev }) => devices.includes(dev));
  if (own === undefined) return;
  throw new FusetapError('BUSY', `the copy would be on ${own.mountpoint}, which is mounted from ${vbd.vdev} itself`, {
    hint: 'save it to another file system',
  });
}
