/**
 * Swap: a vbd gets another image while programs have it open. Its I/O is paused meanwhile.
 *
 *      image opened and claimed (rule 8) → repaired → memory filled (ram) → the old disk flushed → the new one opened in the
 *      server, of the same size → the old one replaced by it → released
 *
 * The new image may be over the old one, which is a snapshot: the old image is claimed for reading too, before it is released.
 *
 * All or nothing: until the server has confirmed the swap, the keeper and every new server use the old image.
 */
import { FusetapError } from '../../../drivers/errors.js';
import { hasThirdParty } from '../../../drivers/graph.js';
import type { SwapRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { logEvent } from '../../runtime/log.js';
import type { AttachContext } from '../sources/attach-context.js';
import { openSource } from '../sources/open-source.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import { attachCommand } from './attach.js';
import type { Detaching } from './detach.js';
import { logCopy } from './log-copy.js';
import type { Pausing } from './pause.js';

/** What a swap needs of the keeper. */
export interface Swapping {
  readonly bus: BusParts;
  readonly pausing: Pausing;
  readonly detaching: Detaching;
  readonly context: AttachContext;
}

/**
 * @returns remarks for the user, one line each
 * @throws FusetapError USAGE if the vbd is not paused and the request does not ask for it, or if the size differs
 */
export async function swap(
  swapping: Swapping,
  vbd: Vbd,
  request: SwapRequest,
  watcher: CopyWatcher,
): Promise<readonly string[]> {
  const { bus, pausing } = swapping;
  const told = logCopy(request.image, watcher);
  // meanwhile it cannot be detached, resumed, saved or reset
  return await bus.activities.run(vbd, 'swapping', told.signal, async (signal) => {
    refusePassedThrough(vbd);
    const work = (): Promise<readonly string[]> => swapPaused(swapping, vbd, request, { ...told, signal });
    if (request.pause) return await pausing.whilePaused(vbd, signal, work);
    refuseRunning(vbd, bus.place.name);
    return await work();
  });
}

async function swapPaused(
  { bus, detaching, context }: Swapping,
  vbd: Vbd,
  request: SwapRequest,
  watcher: CopyWatcher,
): Promise<readonly string[]> {
  const old = vbd.source;
  const wish = { ...request, mode: vbd.mode, filters: vbd.filters };
  const { source, notes } = await openSource(context, wish, watcher, old);
  try {
    const { size: _, ...place } = { ...vbd, source };
    const attach = attachCommand(place, bus.memories);
    const facts = context.facts({ ...vbd, source });
    const swap = (): Promise<null> =>
      context.server.request<'swap'>({ op: 'swap', attach, facts }, { once: hasThirdParty(source.graph) });
    await (vbd.mapId === null ? swap() : whileClosed({ detaching, context }, vbd, swap));
  } catch (error) {
    await source.holdings.release();
    throw error;
  }
  vbd.source = source;
  // an error of close(2) does not matter here: the server has flushed the old image
  void old.holdings.release();
  bus.record();
  const { driver, imagePath } = source;
  logEvent({ event: 'swapped', vdev: vbd.vdev, driver, image: imagePath });
  await bus.images.begun(bus, vbd).catch((error: unknown) => console.error(`the new image of ${vbd.vdev}:`, error));
  return notes;
}

/**
 * Swaps a vbd that the kernel can map: nobody may have it open, because a mapping would keep the old image. Afterwards
 * the kernel cannot map it any more.
 * @throws FusetapError BUSY with the holders
 */
async function whileClosed(
  { detaching, context }: Pick<Swapping, 'detaching' | 'context'>,
  vbd: Vbd,
  swap: () => Promise<null>,
): Promise<void> {
  await detaching.ensureFileUnused(vbd, { waitMs: 0 }).catch((error: unknown) => {
    if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
    throw new FusetapError('BUSY', `${error.message}; it can be mapped, so its image cannot be replaced meanwhile`, {
      hint: 'close it there, or attach it with --passthrough off',
      holders: error.holders,
    });
  });
  try {
    await swap();
    if (vbd.mapId !== null) context.unregister(vbd.mapId);
    vbd.mapId = null;
  } finally {
    await detaching.allowOpens(vbd);
  }
}

function refuseRunning(vbd: Vbd, bus: string): void {
  if (vbd.paused) return;
  throw new FusetapError('USAGE', `${vbd.vdev} on bus ${bus} is not paused: its image cannot be swapped`, {
    hint: `fusetap pause --bus ${bus} ${vbd.vdev}`,
  });
}

function refusePassedThrough({ vdev, backingId }: Vbd): void {
  if (backingId === null) return;
  throw new FusetapError('UNSUPPORTED', `${vdev} is passed through: the kernel keeps using its image`, {
    hint: 'attach it with --passthrough off',
  });
}
