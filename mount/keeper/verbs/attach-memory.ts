/**
 * Attach to a ram image: to the one that exists, or to a new copy. The file is claimed for reading (rule 8) only while
 * it is copied: a vbd that joins an existing ram image does not read it.
 */
import { isAbsolute } from 'node:path';
import { closeAll } from '../../../drivers/close-fd.js';
import { FusetapError } from '../../../drivers/errors.js';
import type { AttachRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { type Claim, claimImage } from '../../images/claim-image.js';
import { identityOf, type OpenedImage, openImage } from '../../images/open-image.js';
import type { RecognizedEnds } from '../../images/refuse-foreign.js';
import type { AcquiredRamImage, Filling, RamImage } from '../../ram/ram-images.js';
import type { ImageRef } from '../../server/commands.js';
import { type AttachContext, ownBus } from './attach-context.js';

type Copied = Pick<AttachRequest, 'driver' | 'image' | 'options' | 'share'> & {
  /** default: neither */
  readonly recognize?: RecognizedEnds;
};

/** Gets the ram image for a vbd. The caller has to release it. */
export async function attachMemory(
  context: AttachContext,
  request: Copied,
  watcher: CopyWatcher,
): Promise<AcquiredRamImage> {
  const { driver, share = null } = request;
  const source = await openSource(context, request);
  try {
    const wish = { driver, share, image: source.image, signal: watcher.signal };
    return await context.memories.acquire(wish, fillingFrom(context, source, request, watcher));
  } finally {
    await closeSource(source);
  }
}

/** Makes a new copy to replace a ram image that only one vbd uses. The caller has both then. */
export async function recopyMemory(
  context: AttachContext,
  request: Copied,
  old: RamImage,
  watcher: CopyWatcher,
): Promise<RamImage> {
  const source = await openSource(context, { ...request, share: null });
  if (source.image === null) throw noImage(request.driver);
  try {
    return await context.memories.refill(old, source.image, fillingFrom(context, source, request, watcher));
  } finally {
    await closeSource(source);
  }
}

/** The image to copy, and its claim while it is copied. */
interface Source {
  readonly image: OpenedImage | null;
  claim: Claim | null;
}

async function openSource(context: AttachContext, wish: Copied): Promise<Source> {
  const { image, share = null, recognize = 'neither' } = wish;
  if (image === null) return { image: null, claim: null };
  const options = { mayBeEmpty: share !== null, recognize };
  return { image: await openImage(image, 'r', ownBus(context), options), claim: null };
}

async function closeSource({ image, claim }: Source): Promise<void> {
  claim?.release();
  if (image !== null) await closeAll([image.fd]);
}

function fillingFrom(
  context: AttachContext,
  source: Source,
  { driver, options }: Copied,
  { signal, progress }: CopyWatcher,
): Filling {
  const { image } = source;
  const ref = image && imageRef(image);
  return {
    async measure() {
      if (image === null) throw noImage(driver);
      // closeSource releases the claim when the copy is made
      source.claim ??= await claimImage(image, 'r', { describePid: context.describePid });
      signal.throwIfAborted();
      const { bytes } = await context.server.request<'measure'>(
        { op: 'measure', driver, image: ref, options },
        { signal, once: isAbsolute(driver) },
      );
      return bytes;
    },
    async fill(memoryFd) {
      signal.throwIfAborted();
      const command = { op: 'prepare', driver, image: ref, memoryFd, options } as const;
      const { state } = await context.server.request<'prepare'>(command, {
        ...{ signal, progress },
        // idempotent: another server copies again over the part that a dead server has copied
        once: isAbsolute(driver),
      });
      signal.throwIfAborted();
      return state;
    },
  };
}

function noImage(driver: string): FusetapError {
  return new FusetapError('USAGE', `driver ${driver} needs an image`, { hint: `give one as ${driver}:PATH` });
}

/** An image in the form of the server's commands. */
export function imageRef(image: OpenedImage): ImageRef {
  const { fd, path, sizeBytes, kind } = image;
  return { fd, path, sizeBytes, kind, identity: identityOf(image) };
}
