/** Reset: copies the image of a ram vbd afresh. The old copy is kept until the new one is whole. */
import { FusetapError } from '../../../drivers/errors.js';
import type { CopyWatcher } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { attach } from './attach.js';
import type { AttachContext } from './attach-context.js';
import { recopyMemory } from './attach-memory.js';
import type { Detaching } from './detach.js';
import { logCopy } from './log-copy.js';

/** What a reset needs of the keeper. */
export interface ResetContext {
  readonly bus: BusParts;
  readonly detaching: Detaching;
  /** for the vbd that comes in the place of the old one; to its users it is the same file */
  readonly context: AttachContext;
}

/** @throws FusetapError BUSY where anybody holds it or shares it */
export async function reset(resetContext: ResetContext, vbd: Vbd, watcher: CopyWatcher): Promise<void> {
  await resetContext.bus.activities.run(vbd, 'resetting', watcher.signal, (signal) =>
    resetNow(resetContext, vbd, { ...watcher, signal }),
  );
}

async function resetNow({ bus, detaching, context }: ResetContext, vbd: Vbd, watcher: CopyWatcher): Promise<void> {
  const { vbds, memories } = bus;
  const { mode, filters, slot, vdev } = vbd;
  const { memory, driver, options, imagePath } = vbd.source;
  if (memory === null) throw notRam(vbd);
  vbds.reserve(slot, vbd.partitions !== null);
  const told = logCopy(memory.image, watcher);
  try {
    await detaching.ensureUnused(vbd, { waitMs: 0, signal: watcher.signal });
    const fresh = await recopyMemory(context, { driver, options, image: memory.image }, memory, told);
    try {
      const share = memories.shareOf(fresh);
      // as it was: by threads, or passed through
      const passthrough = vbd.backingId === null ? 'off' : 'on';
      const request = { driver, image: imagePath, vdev, mode, options, filters: [...filters], share };
      const partitions = vbd.partitions !== null;
      // its file takes the name from the old one; where that fails, the old one has it still
      const again = await attach(context, { ...request, passthrough, partitions }, { slot, vdev }, told);
      await detaching.close(vbd);
      vbds.add(again.vbd);
    } catch (error) {
      if (vbds.has(vbd)) await memories.undoRefill(fresh, memory);
      throw error;
    } finally {
      memories.release(fresh);
    }
    bus.record();
    logEvent({ event: 'reset', vdev });
  } catch (error) {
    if (vbds.has(vbd) && vbd.leaving) await detaching.allowOpens(vbd);
    throw error;
  } finally {
    vbds.unreserve(slot);
  }
}

function notRam({ vdev, source: { driver } }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} has no copy that could be made afresh: its driver is ${driver}`, {
    hint: 'reset is for ram vbds',
  });
}
