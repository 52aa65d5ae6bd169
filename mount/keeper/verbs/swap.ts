/**
 * Swap: a paused vbd gets another image, while programs have it open.
 *
 *      image opened and claimed (rule 8) → memory filled (ram) → disk opened in the server, of the same size →
 *      the old one flushed → replaced by the new one → the old one released
 *
 * All or nothing: until the server has confirmed the swap, the keeper and every new server use the old image.
 */
import { isAbsolute } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import type { SwapRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { attachCommand } from './attach.js';
import type { AttachContext } from './attach-context.js';
import { openSource } from './open-source.js';

/** Gives a paused vbd another image. It stays paused. */
export async function swap(
  bus: BusParts,
  context: AttachContext,
  vbd: Vbd,
  { request, watcher }: { request: SwapRequest; watcher: CopyWatcher },
): Promise<void> {
  // meanwhile it cannot be detached, resumed, saved or reset
  await bus.activities.run(vbd, 'swapping', watcher.signal, async (signal) => {
    refuseUnlessSwappable(bus, vbd);
    const { driver, image } = request;
    const wish = { ...request, mode: vbd.mode, filters: vbd.filters };
    const old = vbd.source;
    const { source } = await openSource(context, wish, { ...watcher, signal }, old);
    try {
      const { size: _, ...place } = { ...vbd, source };
      const attach = attachCommand(place, bus.memories);
      const facts = context.facts({ ...vbd, source });
      await context.server.request<'swap'>({ op: 'swap', attach, facts }, { once: isAbsolute(driver) });
    } catch (error) {
      await source.holdings.release();
      throw error;
    }
    vbd.source = source;
    // an error of close(2) does not matter here: the server has flushed the old image
    void old.holdings.release();
    bus.record();
    logEvent({ event: 'swapped', vdev: vbd.vdev, driver, image });
  });
}

function refuseUnlessSwappable(bus: BusParts, vbd: Vbd): void {
  const { name } = bus.place;
  if (!vbd.paused) {
    throw new FusetapError('USAGE', `${vbd.vdev} on bus ${name} is not paused: its image cannot be swapped`, {
      hint: `fusetap pause --bus ${name} ${vbd.vdev}`,
    });
  }
  if (vbd.backingId === null) return;
  throw new FusetapError('UNSUPPORTED', `${vbd.vdev} is passed through: the kernel keeps using its image`, {
    hint: 'attach it with --passthrough off',
  });
}
