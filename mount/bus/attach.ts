/**
 * Attaching, step by step; whatever fails, all steps before it are undone in reverse.
 *
 *      slot reserved → image opened → sharing rule checked and claimed → memory filled (ram) → disk opened in the server
 */
import { closeSync } from 'node:fs';
import { FusetapError } from '../../drivers/errors.js';
import { type Claim, claimImage } from './image-claim.js';
import type { AttachRequest } from './interface.js';
import type { AttachCommand, DriverFacts, ImageRef } from './ipc.js';
import type { Memories, SharedMemory } from './memories.js';
import { type OpenedImage, openImage } from './open-image.js';
import type { Slot } from './slots.js';
import type { Supervisor } from './supervisor.js';
import type { Vbd } from './vbd.js';

/** What attaching needs of the keeper. */
export interface AttachContext {
  readonly server: Supervisor;
  readonly memories: Memories;
  readonly mountpoint: string;
  /** device of the mount, as `MAJOR:MINOR`: an image there would wait for itself */
  readonly mountDev: string;
  newNode(): { nodeId: number; ledgerIndex: number };
  freeNode(ledgerIndex: number): void;
  /** who of us holds an image of that identity, by pid */
  findVbdOfPid(pid: number, identity: string): { bus: string; vdev: string } | null;
}

type Undo = () => void | Promise<void>;

/** Attaches to a slot that the caller has reserved. `signal`: the client went away. */
export async function attach(
  context: AttachContext,
  request: AttachRequest,
  slot: Slot,
  signal: AbortSignal,
): Promise<Vbd> {
  const undo: Undo[] = [];
  try {
    return await attachSteps(context, request, slot, signal, undo);
  } catch (error) {
    for (const step of undo.reverse()) await step();
    throw error;
  }
}

async function attachSteps(
  context: AttachContext,
  request: AttachRequest,
  { slot, vdev }: Slot,
  signal: AbortSignal,
  undo: Undo[],
): Promise<Vbd> {
  const { server } = context;
  const { driver, mode, options } = request;
  const facts = await server.request<'describe'>({ op: 'describe', driver });
  checkImageGiven(facts, request);
  let held = request.image === null ? null : await openAndClaim(context, request.image, facts, request, undo);
  let memory: SharedMemory | null = null;
  if (facts.sharesMemory && held !== null) {
    memory = await acquireMemory(context, held.image, request, signal);
    const acquired = memory;
    undo.push(() => context.memories.release(acquired));
    // the copy is made: from here on the image may be written, moved or removed
    held.release();
    held = null;
  }
  signal.throwIfAborted();
  const node = context.newNode();
  undo.push(() => context.freeNode(node.ledgerIndex));
  const state = memory?.state ?? null;
  const { image, claim } = held ?? { image: null, claim: null };
  const known = { slot, vdev, mode, driver, options, imagePath: request.image, ...node, image, claim, memory, state };
  const { size } = await server.request<'attach'>(attachCommand({ ...known, leaving: false }, false));
  if (signal.aborted) {
    await server.request<'detach'>({ op: 'detach', nodeId: node.nodeId });
    signal.throwIfAborted();
  }
  return { ...known, size, leaving: false, detaching: false };
}

/** What a server is told to open a vbd: at attach, and (inherited) again when it takes over from another. */
export function attachCommand(vbd: Omit<Vbd, 'size' | 'detaching'>, inherited: boolean): AttachCommand {
  const { nodeId, ledgerIndex, vdev, driver, mode, image, memory, state, options, leaving } = vbd;
  return {
    op: 'attach',
    nodeId,
    ledgerIndex,
    name: vdev,
    driver,
    mode,
    image: image && imageRef(image),
    memoryFd: memory?.fd ?? null,
    state,
    options,
    inherited,
    leaving,
  };
}

function checkImageGiven(facts: DriverFacts, { driver, image }: AttachRequest): void {
  if (facts.image === 'required' && image === null) {
    throw new FusetapError('USAGE', `driver ${driver} needs an image`, { hint: `give one as ${driver}:PATH` });
  }
  if (facts.image === 'none' && image !== null) {
    throw new FusetapError('USAGE', `driver ${driver} takes no image: ${image}`);
  }
}

interface HeldImage {
  readonly image: OpenedImage;
  readonly claim: Claim;
  release(): void;
}

async function openAndClaim(
  context: AttachContext,
  path: string,
  facts: DriverFacts,
  request: AttachRequest,
  undo: Undo[],
): Promise<HeldImage> {
  // memory takes the writes, so the file is only ever read
  const mode = facts.sharesMemory ? 'r' : request.mode;
  const image = await openImage(path, mode, { ownDev: context.mountDev, mountpoint: context.mountpoint });
  let released = false;
  let claim: Claim | null = null;
  const release = (): void => {
    if (released) return;
    released = true;
    claim?.release();
    closeSync(image.fd);
  };
  undo.push(release);
  claim = await claimImage(image, mode, {
    describePid: (pid) => context.findVbdOfPid(pid, `${image.dev}:${image.ino}`),
  });
  return { image, claim, release };
}

function acquireMemory(
  context: AttachContext,
  image: OpenedImage,
  { driver, options }: AttachRequest,
  signal: AbortSignal,
): Promise<SharedMemory> {
  return context.memories.acquire(`${image.dev}:${image.ino}`, async (memoryFd) => {
    const command = { op: 'prepare', driver, image: imageRef(image), memoryFd, options } as const;
    const { state } = await context.server.request<'prepare'>(command, { signal });
    return state;
  });
}

/** An image as the server is told of it. */
function imageRef({ fd, path, sizeBytes, kind }: OpenedImage): ImageRef {
  return { fd, path, sizeBytes, kind };
}
