/**
 * Opens the source of a vbd's bytes, for attach and swap: an image, claimed by rule 8, or a ram image.
 */
import { isAbsolute } from 'node:path';
import { FusetapError } from '../../../drivers/errors.js';
import type { AttachRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { endsShown } from '../../images/refuse-foreign.js';
import type { DriverFacts } from '../../server/commands.js';
import { Holdings } from '../vbds/holdings.js';
import type { Vbd, VbdSource } from '../vbds/vbd.js';
import { type AttachContext, ownBus } from './attach-context.js';
import { attachMemory } from './attach-memory.js';

export type SourceWish = Pick<AttachRequest, 'driver' | 'image' | 'options' | 'share' | 'raw'> &
  Pick<Vbd, 'mode' | 'filters'>;

export interface OpenedSource {
  readonly source: VbdSource;
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

/**
 * Opens a source. If that fails, nothing stays open or claimed.
 * @param old the source that it replaces: a file that both have stays open and claimed
 * @throws FusetapError USAGE if driver and image do not match; errors of opening, claiming and copying
 */
export async function openSource(
  context: AttachContext,
  wish: SourceWish,
  watcher: CopyWatcher,
  old?: VbdSource,
): Promise<OpenedSource> {
  const { driver, filters, image: imagePath, options, mode } = wish;
  // if a third-party driver kills the server, it is not tried again
  const once = isAbsolute(driver);
  const facts = await context.server.request<'describe'>({ op: 'describe', driver, filters }, { once });
  checkImageGiven(facts, wish);
  const holdings = new Holdings();
  const asked = { driver, options, imagePath, raw: wish.raw ?? false, holdings };
  const recognize = facts.rawImage && !asked.raw ? endsShown(filters) : 'neither';
  try {
    if (facts.sharesMemory) {
      const { memory, notes } = await attachMemory(context, { ...wish, recognize }, watcher);
      holdings.own('a ram image', () => context.memories.release(memory));
      if (mode !== 'r') await context.memories.allowWriting(memory);
      watcher.signal.throwIfAborted();
      return { source: { ...asked, image: null, memory, state: memory.state }, notes };
    }
    const file = { mode, ownBus: ownBus(context), describePid: context.describePid, recognize };
    const image = imagePath === null ? null : await holdings.file({ path: imagePath, ...file }, old?.holdings);
    watcher.signal.throwIfAborted();
    return { source: { ...asked, image, memory: null, state: null }, notes: [] };
  } catch (error) {
    await holdings.release();
    throw error;
  }
}

/** @throws FusetapError USAGE if driver, image and share name do not match */
function checkImageGiven(facts: DriverFacts, { driver, image, share = null }: SourceWish): void {
  if (share !== null && !facts.sharesMemory) {
    throw new FusetapError('USAGE', `driver ${driver} has no memory to share as ${share}`, {
      hint: 'omit --share, or use the driver ram',
    });
  }
  if (facts.image === 'required' && image === null && share === null) {
    throw new FusetapError('USAGE', `driver ${driver} needs an image`, { hint: `give one as ${driver}:PATH` });
  }
  if (facts.image === 'none' && image !== null) {
    throw new FusetapError('USAGE', `driver ${driver} takes no image: ${image}`);
  }
}
