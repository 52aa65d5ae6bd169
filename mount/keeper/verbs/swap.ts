/**
 * Swapping: a vbd that is paused gets another image, under those who have it open.
 *
 *      image opened and claimed (rule 8) → memory filled (ram) → disk opened in the server, of the same size →
 *      the old one flushed → the new one in its place → the old one let go
 *
 * All or nothing: until the server has said yes the keeper knows the old image, and so does every server after it.
 */
import { isAbsolute } from 'node:path';
import { closeAll } from '../../../drivers/close-fd.js';
import { FusetapError } from '../../../drivers/errors.js';
import type { SwapRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { claimImage } from '../../images/claim-image.js';
import { identityOf, openImage } from '../../images/open-image.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { letGoOfAll } from '../vbds/let-go-of-all.js';
import type { Vbd } from '../vbds/vbd.js';
import { attachCommand, checkImageGiven } from './attach.js';
import { type AttachContext, ownBus } from './attach-context.js';
import { attachMemory } from './attach-memory.js';

type Bytes = Pick<Vbd, 'image' | 'claim' | 'memory' | 'state'>;

/** @returns the vbd, with its new image and still paused */
export async function swap(
  bus: BusParts,
  context: AttachContext,
  vdev: string,
  request: SwapRequest,
  watcher: CopyWatcher,
): Promise<Vbd> {
  const vbd = bus.vbds.find(vdev);
  // meanwhile nobody detaches, resumes or copies it
  return await bus.activities.run(vbd, 'swapping', watcher.signal, async (signal) => {
    refuse(bus, vbd);
    const { driver, options, image: imagePath } = request;
    const { server } = context;
    const once = isAbsolute(driver);
    const facts = await server.request<'describe'>({ op: 'describe', driver, filters: vbd.filters }, { once });
    checkImageGiven(facts, { ...request, vdev, mode: vbd.mode });
    const bytes = await openBytes(context, vbd, request, facts.sharesMemory, { ...watcher, signal });
    try {
      signal.throwIfAborted();
      const fresh = { driver, options, imagePath, ...bytes };
      const { size: _, ...opened } = { ...vbd, ...fresh };
      const command = {
        op: 'swap',
        attach: attachCommand(opened, bus.memories),
        facts: context.facts({ ...vbd, ...fresh }),
      } as const;
      await server.request<'swap'>(command, { once });
      const { image, claim, memory, state } = vbd;
      // it stays the vbd that others know: who holds it, and which servers were told of it, goes by the object
      Object.assign(vbd, fresh);
      letGo(bus, { image, claim, memory, state }, bytes);
      bus.record();
      logEvent({ event: 'swapped', vdev: vbd.vdev, driver, image: imagePath });
      return vbd;
    } catch (error) {
      letGo(bus, bytes, vbd);
      throw error;
    }
  });
}

function refuse(bus: BusParts, vbd: Vbd): void {
  const { name } = bus.place;
  if (!vbd.paused) {
    throw new FusetapError('USAGE', `${vbd.vdev} on bus ${name} is not paused: its image cannot be swapped`, {
      hint: `fusetap pause --bus ${name} ${vbd.vdev}`,
    });
  }
  if (vbd.backingId === null) return;
  throw new FusetapError('UNSUPPORTED', `${vbd.vdev} is passed through: the kernel keeps the image that it has`, {
    hint: 'attach it with --passthrough off',
  });
}

async function openBytes(
  context: AttachContext,
  old: Vbd,
  { driver, image: path, share, options }: SwapRequest,
  sharesMemory: boolean,
  watcher: CopyWatcher,
): Promise<Bytes> {
  if (sharesMemory) {
    const { memory } = await attachMemory(context, { driver, image: path, options, share }, watcher);
    try {
      if (old.mode !== 'r') await context.memories.allowWriting(memory);
    } catch (error) {
      context.memories.release(memory);
      throw error;
    }
    return { image: null, claim: null, memory, state: memory.state };
  }
  if (path === null) return { image: null, claim: null, memory: null, state: null };
  const image = await openImage(path, old.mode, ownBus(context));
  try {
    // the same image, by another driver perhaps: what was claimed of it is ours already
    if (old.image !== null && identityOf(old.image) === identityOf(image)) {
      void closeAll([image.fd]);
      return { image: old.image, claim: old.claim, memory: null, state: null };
    }
    const claim = await claimImage(image, old.mode, {
      describePid: (pid, image) => context.findVbdOfPid(pid, identityOf(image)),
    });
    return { image, claim, memory: null, state: null };
  } catch (error) {
    await closeAll([image.fd]);
    throw error;
  }
}

/** Lets go of what one has and the other has not. */
function letGo({ memories }: BusParts, { image, claim, memory }: Bytes, kept: Bytes): void {
  const isOwn = image !== null && image !== kept.image;
  letGoOfAll('a vbd', [
    () => isOwn && claim?.release(),
    () => isOwn && void closeAll([image.fd]),
    // both count as users, also of the same memory
    () => memory !== null && memories.release(memory),
  ]);
}
