/** Reset: copies the image of a ram vbd again. The old copy is kept until the new one is complete. */
import { FusetapError } from '../../../drivers/errors.js';
import type { CopyWatcher } from '../../control/progress.js';
import { endsShown } from '../../images/refuse-foreign.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { attach } from './attach.js';
import type { AttachContext } from './attach-context.js';
import { recopyMemory } from './attach-memory.js';
import type { Detaching } from './detach.js';
import { logCopy } from './log-copy.js';

/** What a reset needs from the keeper. */
export interface ResetContext {
  readonly bus: BusParts;
  readonly detaching: Detaching;
  /** for attaching the new vbd, which to its users is the same file */
  readonly context: AttachContext;
}

/** @throws FusetapError BUSY if anybody uses it or shares it */
export async function reset(resetContext: ResetContext, vbd: Vbd, watcher: CopyWatcher): Promise<void> {
  await resetContext.bus.activities.run(vbd, 'resetting', watcher.signal, (signal) =>
    resetNow(resetContext, vbd, { ...watcher, signal }),
  );
}

async function resetNow({ bus, detaching, context }: ResetContext, vbd: Vbd, watcher: CopyWatcher): Promise<void> {
  const { vbds, memories } = bus;
  const { mode, filters, slot, vdev, sectorBytes } = vbd;
  const { memory, driver, options, imagePath, raw } = vbd.source;
  if (memory === null) throw notRam(vbd);
  vbds.reserve(slot, vbd.partitions !== null);
  const told = logCopy(memory.image, watcher);
  try {
    await detaching.ensureUnused(vbd, { waitMs: 0, signal: watcher.signal });
    const recognize = raw ? 'neither' : endsShown(filters);
    const fresh = await recopyMemory(context, { driver, options, image: memory.image, recognize }, memory, told);
    try {
      const share = memories.shareOf(fresh);
      // passed through only if the old one was
      const passthrough = vbd.backingId === null ? 'off' : 'on';
      const request = { driver, image: imagePath, vdev, mode, options, filters: [...filters], share, raw };
      const partitions = vbd.partitions !== null;
      // the new file takes over the name; if the attach fails, the old file still has it
      const table = { partitions, ...(sectorBytes !== null && { sectorSize: sectorBytes }) };
      const again = await attach(context, { ...request, passthrough, ...table }, { slot, vdev }, told);
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
  return new FusetapError('UNSUPPORTED', `${vdev} has no copy in memory to reset: its driver is ${driver}`, {
    hint: 'only ram vbds can be reset',
  });
}
