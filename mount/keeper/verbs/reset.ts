/** Reset: copies the image of a ram vbd again. The old copy is kept until the new one is complete. */
import { FusetapError } from '../../../drivers/errors.js';
import { isSimple, simpleGraph } from '../../../drivers/graph.js';
import type { CopyWatcher } from '../../control/progress.js';
import { endsShown } from '../../images/refuse-foreign.js';
import type { RamImage } from '../../ram/ram-images.js';
import { logEvent } from '../../runtime/log.js';
import type { AttachContext } from '../sources/attach-context.js';
import { copyAgain } from '../sources/open-tree.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { type Vbd, wishOf } from '../vbds/vbd.js';
import { attach } from './attach.js';
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
  const { source } = vbd;
  const { memory } = source;
  if (memory === null) throw notRam(vbd);
  vbds.reserve(slot, vbd.partitions !== null);
  const told = logCopy(memory.image, watcher);
  try {
    await detaching.ensureUnused(vbd, { waitMs: 0, signal: watcher.signal });
    // memory of the vbd alone is made anew by the attach
    const fresh = memory.isOwn ? null : await recopy(context, vbd, memory, told);
    try {
      const share = fresh && memories.shareOf(fresh);
      // passed through only if the old one was
      const passthrough = vbd.backingId === null ? 'off' : 'on';
      const request = { ...wishOf(source), vdev, mode, filters: [...filters], share };
      const partitions = vbd.partitions !== null;
      // the new file takes over the name; if the attach fails, the old file still has it
      const table = { partitions, ...(sectorBytes !== null && { sectorSize: sectorBytes }) };
      const again = await attach(context, { ...request, passthrough, ...table }, { slot, vdev }, told);
      await detaching.close(vbd);
      vbds.add(again.vbd);
    } catch (error) {
      if (vbds.has(vbd) && fresh !== null) await memories.undoRefill(fresh, memory);
      throw error;
    } finally {
      if (fresh !== null) memories.release(fresh);
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

/** Makes the new copy of a ram image. */
async function recopy(
  context: AttachContext,
  { source, filters }: Vbd,
  old: RamImage,
  watcher: CopyWatcher,
): Promise<RamImage> {
  const { driver, options, raw, backing } = source;
  // a vbd that joined the ram image by its name has no image, or another one
  const graph = isSimple(source.graph) ? simpleGraph(driver, old.image, options) : source.graph;
  const plan = await context.server.request<'plan'>({ op: 'plan', graph, filters });
  return await copyAgain(
    context,
    { graph, plan },
    { recognize: raw ? 'neither' : endsShown(filters), backing, old },
    watcher,
  );
}

function notRam({ vdev, source: { driver } }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} has no copy in memory to reset: its driver is ${driver}`, {
    hint: 'only ram vbds can be reset',
  });
}
