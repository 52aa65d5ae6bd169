/**
 * Attaching, step by step; whatever fails, all steps before it are undone in reverse.
 *
 *      slot reserved → image opened → sharing rule checked and claimed → memory filled (ram) → disk opened in the server
 *        → partitions read → files shown
 */
import { fstatSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { closeAll } from '../../../drivers/close-fd.js';
import { FusetapError } from '../../../drivers/errors.js';
import { errnoName } from '../../../system/libc.js';
import type { AttachRequest } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { cannotPassThrough, type PassthroughCandidate, wantsPassthrough } from '../../fuse/mounting/passthrough.js';
import { type Claim, claimImage } from '../../images/claim-image.js';
import { identityOf, type OpenedImage, openImage } from '../../images/open-image.js';
import type { AcquiredMemory, Memories, SharedMemory } from '../../ram/ram-images.js';
import type { AttachCommand, DriverFacts, ShowCommand, VbdFacts } from '../../server/commands.js';
import type { Slot } from '../../slots/slots.js';
import { isServerDeath } from '../supervision/server-process.js';
import type { Vbd } from '../vbds/vbd.js';
import { type AttachContext, ownBus } from './attach-context.js';
import { attachMemory, imageRef } from './attach-memory.js';
import { takePartitions } from './attach-partitions.js';

/** What was attached, and what the user should know of it. */
export interface AttachedVbd {
  readonly vbd: Vbd;
  readonly notes: readonly string[];
}

type Undo = () => void | Promise<void>;

/** Attaches to a slot that the caller has reserved. */
export async function attach(
  context: AttachContext,
  request: AttachRequest,
  slot: Slot,
  watcher: CopyWatcher,
): Promise<AttachedVbd> {
  const undo: Undo[] = [];
  try {
    return await attachSteps(context, request, slot, watcher, undo);
  } catch (error) {
    for (const step of undo.reverse()) {
      // one that fails (a new server never had the disk) must not keep the others from being done
      await Promise.resolve()
        .then(step)
        .catch((failure: unknown) => console.error('while undoing an attach:', failure));
    }
    throw error;
  }
}

async function attachSteps(
  context: AttachContext,
  request: AttachRequest,
  { slot, vdev }: Slot,
  watcher: CopyWatcher,
  undo: Undo[],
): Promise<AttachedVbd> {
  const { server } = context;
  const { signal } = watcher;
  const { driver, mode, options, filters = [] } = request;
  // a third-party driver that takes the server down with it is not asked again
  const facts = await server.request<'describe'>({ op: 'describe', driver, filters }, { once: isAbsolute(driver) });
  checkImageGiven(facts, request);
  let held: HeldImage | null = null;
  let acquired: AcquiredMemory | null = null;
  if (facts.sharesMemory) {
    acquired = await attachMemory(context, request, watcher);
    const { memory } = acquired;
    undo.push(() => context.memories.release(memory));
    if (mode !== 'r') await context.memories.allowWriting(memory);
  } else if (request.image !== null) {
    held = await openAndClaim(context, request.image, request, undo);
  }
  const memory = acquired?.memory ?? null;
  signal.throwIfAborted();
  const node = context.newNode();
  undo.push(() => context.freeNode(node.ledgerIndex));
  const { image, claim } = held ?? { image: null, claim: null };
  const state = memory?.state ?? null;
  const asked = { mode, driver, options, filters, imagePath: request.image };
  const known = { slot, vdev, ...asked, ...node, image, claim, memory, state };
  const once = isAbsolute(driver);
  const { size, window } = await server.request<'attach'>(attachCommand(known, context.memories), { once });
  undo.push(async () => {
    await server.request<'detach'>({ op: 'detach', nodeId: node.nodeId });
  });
  const fileBytes = image?.sizeBytes ?? (memory === null ? size : fstatSync(memory.fd).size);
  const candidate = { vdev, readOnly: mode === 'r', window, fileBytes };
  const backingId = await registerIfWanted(context, request, candidate, { fd: image?.fd ?? memory?.fd, memory });
  if (backingId !== null) undo.push(() => context.unregister(backingId));
  signal.throwIfAborted();
  const opened = { ...known, size };
  const askTable = () => server.request<'partitions'>({ op: 'partitions', nodeId: node.nodeId });
  const table = request.partitions ? await askOpened(context, opened, askTable) : null;
  const taken = table && takePartitions(context, { slot, vdev }, table, undo);
  const flags = { broken: null, paused: false, leaving: false };
  const vbd: Vbd = { ...opened, backingId, partitions: taken?.partitions ?? null, ...flags };
  const command = showCommand(vbd, context.facts(vbd), false);
  await askOpened(context, vbd, () => server.request<'show'>(command));
  return { vbd, notes: [...(acquired?.notes ?? []), ...(taken?.notes ?? [])] };
}

/** Asks the server of a disk that it has open; where that one was replaced meanwhile, the next one opens it first. */
async function askOpened<Result>(
  { server, memories }: AttachContext,
  vbd: OpenedVbd,
  ask: () => Promise<Result>,
): Promise<Result> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      const isLost = isServerDeath(error) || (error instanceof FusetapError && error.code === 'NOT_FOUND');
      if (!isLost || isAbsolute(vbd.driver) || attempt === SHOW_LIMIT) throw error;
    }
    const { broken } = await server.request<'attach'>(attachCommand(vbd, memories));
    if (broken !== null) throw new FusetapError('FAILED', `${vbd.vdev} did not come back: ${broken}`);
  }
}
const SHOW_LIMIT = 3;

async function registerIfWanted(
  context: AttachContext,
  { passthrough = 'auto' }: AttachRequest,
  candidate: PassthroughCandidate,
  { fd, memory }: { fd: number | undefined; memory: SharedMemory | null },
): Promise<number | null> {
  if (fd === undefined || !wantsPassthrough(passthrough, candidate)) return null;
  // the kernel asks nobody before it fills a hole
  if (memory !== null && !candidate.readOnly && !(await context.memories.reserveWhole(memory))) {
    if (passthrough === 'auto') return null;
    throw cannotPassThrough(candidate.vdev, `all of its ${memory.sizeBytes} bytes do not fit below the ram limit`);
  }
  const id = context.register(fd);
  if (id > 0) return id;
  if (memory !== null && !candidate.readOnly) await context.memories.unreserveWhole(memory);
  // whatever the kernel has against it: threads do as well
  if (passthrough === 'auto') return null;
  throw cannotPassThrough(candidate.vdev, `the kernel refuses it (${errnoName(-id)})`, -id);
}

/** What of a vbd is known when its disk is opened. */
type OpenedVbd = Omit<Vbd, 'size' | 'backingId' | 'partitions' | 'broken' | 'paused' | 'leaving'> & {
  readonly size?: number;
};

/** What a server is told to open a vbd's disk: at attach, and again when it takes over from another. */
export function attachCommand(vbd: OpenedVbd, memories: Memories): AttachCommand {
  const { nodeId, ledgerIndex, vdev, driver, mode, image, memory, state, options, filters, size } = vbd;
  const memoryFd = memory?.fd ?? null;
  return {
    op: 'attach',
    nodeId,
    ledgerIndex,
    name: vdev,
    driver,
    mode,
    image: image && imageRef(image),
    memoryFd,
    memoryLink: memory && memories.linkOf(memory),
    state,
    options,
    filters,
    ...(size !== undefined && { size }),
  };
}

/** What a server is told to show a vbd's files; `inherited` where another server had shown it before. */
export function showCommand(vbd: Vbd, facts: VbdFacts, inherited: boolean): ShowCommand {
  const { nodeId, backingId, leaving, paused, heldFor = [] } = vbd;
  const partitions = (vbd.partitions ?? []).map(({ vdev, ...partition }) => ({ ...partition, name: vdev }));
  return { op: 'show', nodeId, backingId, inherited, leaving, held: paused, holders: heldFor, partitions, facts };
}

/** Whether a driver and what it is given go together. @throws FusetapError USAGE */
export function checkImageGiven(facts: DriverFacts, { driver, image, share = null }: AttachRequest): void {
  if (share !== null && !facts.sharesMemory) {
    throw new FusetapError('USAGE', `driver ${driver} has no memory to share as ${share}`, {
      hint: 'leave out --share, or use the driver ram',
    });
  }
  if (facts.image === 'required' && image === null && share === null) {
    throw new FusetapError('USAGE', `driver ${driver} needs an image`, { hint: `give one as ${driver}:PATH` });
  }
  if (facts.image === 'none' && image !== null) {
    throw new FusetapError('USAGE', `driver ${driver} takes no image: ${image}`);
  }
}

interface HeldImage {
  readonly image: OpenedImage;
  readonly claim: Claim;
}

async function openAndClaim(
  context: AttachContext,
  path: string,
  { mode }: AttachRequest,
  undo: Undo[],
): Promise<HeldImage> {
  const image = await openImage(path, mode, ownBus(context));
  // its locks go with it
  undo.push(async () => void (await closeAll([image.fd])));
  const claim = await claimImage(image, mode, {
    describePid: (pid, image) => context.findVbdOfPid(pid, identityOf(image)),
  });
  undo.push(() => claim.release());
  return { image, claim };
}
