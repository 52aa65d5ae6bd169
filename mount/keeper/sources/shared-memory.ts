/**
 * Memory that vbds share (ram): the one that exists, or a new copy. The files that it is copied from are claimed for
 * reading (rule 8) only while they are copied: a vbd that joins an existing ram image does not read them.
 */

import { closeAll } from '../../../drivers/close-fd.js';
import { FusetapError } from '../../../drivers/errors.js';
import type { Measured } from '../../../drivers/graph/open-graph.js';
import type { GraphPlan } from '../../../drivers/graph/plan.js';
import { filesOf, isSimple, mainImage, type NodeSpec } from '../../../drivers/graph.js';
import { builtin } from '../../../system/builtin.js';
import type { CopyWatcher } from '../../control/progress.js';
import { identityOf, type OpenedImage, openImage } from '../../images/open-image.js';
import type { RecognizedEnds } from '../../images/refuse-foreign.js';
import type { AcquiredRamImage, Filling, RamImage } from '../../ram/ram-images.js';
import { type CopiedImage, imageIdentity, remoteIdentity, treeIdentity } from '../../ram/share-rules.js';
import type { GraphRef } from '../../server/commands.js';
import { Holdings } from '../vbds/holdings.js';
import { type AttachContext, ownBus } from './attach-context.js';
import { graphRef, type HeldTree } from './graph-ref.js';

/** A tree whose top has the memory. */
export interface SharedTree {
  readonly graph: NodeSpec;
  readonly plan: GraphPlan;
}

export interface SharedWish {
  readonly recognize: RecognizedEnds;
  /** null: the memory is found by its image */
  readonly share: string | null;
  /** opens and claims for reading what is below the top; the holdings get it */
  openBelow(holdings: Holdings): Promise<HeldTree>;
}

/** What memory is copied from. */
interface Main {
  /** null: there is nothing to copy, so the memory must be there already */
  readonly copied: CopiedImage | null;
  /** the file by which the memory is found, without a claim; null if it is found by the name of a remote disk */
  readonly image: OpenedImage | null;
}

/** Gets the ram image for a vbd. The caller has to release it. */
export async function joinOrFill(
  context: AttachContext,
  tree: SharedTree,
  wish: SharedWish,
  watcher: CopyWatcher,
): Promise<AcquiredRamImage> {
  const { driver } = tree.graph;
  const { share } = wish;
  const main = await findMain(context, tree, wish);
  const copying = new Copying(context, wish, { driver, main, watcher });
  try {
    const asked = { driver, share, image: main.copied, signal: watcher.signal };
    return await context.memories.acquire(asked, copying);
  } finally {
    await copying.end();
    if (main.image !== null) await closeAll([main.image.fd]);
  }
}

/** Makes a new copy to replace a ram image that only one vbd uses. The caller has both then. */
export async function recopy(
  context: AttachContext,
  tree: SharedTree,
  wish: Omit<SharedWish, 'share'> & { readonly old: RamImage },
  watcher: CopyWatcher,
): Promise<RamImage> {
  const asked = { ...wish, share: null };
  const main = await findMain(context, tree, asked);
  const copying = new Copying(context, asked, { driver: tree.graph.driver, main, watcher });
  try {
    if (main.copied === null) throw noImage(tree.graph.driver);
    return await context.memories.refill(wish.old, main.copied, copying);
  } finally {
    await copying.end();
    if (main.image !== null) await closeAll([main.image.fd]);
  }
}

/** Finds what identifies the memory. What several files show cannot be told by one of them: it is found by its name only. */
async function findMain(context: AttachContext, tree: SharedTree, wish: SharedWish): Promise<Main> {
  const { graph, plan } = tree;
  const { claims = null } = plan;
  if (claims !== null) {
    const isOfOne = filesOf(graph).size === 0;
    const identity = treeIdentity(remoteIdentity(claims), treeName(graph, isOfOne));
    return { copied: { path: claims, sizeBytes: null, modifiedMs: null, identity }, image: null };
  }
  const path = mainImage(graph);
  if (path === null && filesOf(graph).size > 0) throw hasNoMainFile(graph.driver);
  if (path === null) return { copied: null, image: null };
  const isRaw = [...filesOf(graph)].some(([at, file]) => file === path && plan.files[at]?.isRaw);
  const options = { mayBeEmpty: wish.share !== null, recognize: isRaw ? wish.recognize : 'neither' } as const;
  const image = await openImage(path, 'r', ownBus(context), options);
  const { sizeBytes, modifiedMs } = image;
  return { copied: { path, sizeBytes, modifiedMs, identity: identityFor(tree, image) }, image };
}

/** The identity by which memory is found: that of the file, or of what drivers make of it. */
function identityFor({ graph, plan }: SharedTree, image: OpenedImage): string {
  if (isSimple(graph)) return imageIdentity(image);
  const isOfOne = filesOf(graph).size === 1 && !plan.mayNeed;
  return treeIdentity(imageIdentity(image), treeName(graph, isOfOne));
}

/** @param isOfOne nothing else has a part in it */
function treeName(graph: NodeSpec, isOfOne: boolean): string {
  return `${JSON.stringify(graph)}${isOfOne ? '' : builtin.crypto.randomUUID()}`;
}

/** Fills memory from what is below its node: opens and claims that when it is measured. */
class Copying implements Filling {
  readonly #context: AttachContext;
  readonly #wish: SharedWish;
  readonly #driver: string;
  readonly #main: Main;
  readonly #watcher: CopyWatcher;
  readonly #holdings = new Holdings();
  #opened: Promise<GraphRef> | null = null;

  constructor(
    context: AttachContext,
    wish: SharedWish,
    of: { readonly driver: string; readonly main: Main; readonly watcher: CopyWatcher },
  ) {
    const { driver, main, watcher } = of;
    this.#context = context;
    this.#driver = driver;
    this.#wish = wish;
    this.#main = main;
    this.#watcher = watcher;
  }

  async measure(): Promise<Measured> {
    const { signal } = this.#watcher;
    return await this.#context.server.request<'measure'>({ op: 'measure', ...(await this.#place()) }, { signal });
  }

  async fill(memoryFd: number) {
    const { signal, progress } = this.#watcher;
    const place = await this.#place();
    signal.throwIfAborted();
    // idempotent: another server copies again over the part that a dead server has copied
    const { state } = await this.#context.server.request<'prepare'>(
      { op: 'prepare', ...place, memoryFd },
      { signal, progress },
    );
    signal.throwIfAborted();
    return state;
  }

  /** Closes what was opened for the copy. */
  async end(): Promise<void> {
    await this.#opened?.catch(() => {});
    await this.#holdings.release();
  }

  async #place() {
    this.#opened ??= this.#open();
    return { disk: await this.#opened, node: '', path: this.#main.copied?.path ?? '' };
  }

  async #open(): Promise<GraphRef> {
    const { copied, image } = this.#main;
    if (copied === null) throw noImage(this.#driver);
    const opened = await this.#wish.openBelow(this.#holdings);
    const isGone = image !== null && this.#holdings.find(identityOf(image)) === undefined;
    if (isGone && opened.memories.size === 0) {
      throw new FusetapError('FAILED', `${copied.path} was replaced while it was opened`, { path: copied.path });
    }
    return graphRef(opened, this.#context.memories);
  }
}

function hasNoMainFile(driver: string): FusetapError {
  const message = `driver ${driver} copies only what has a main file: the disk below it has none`;
  return new FusetapError('UNSUPPORTED', message, {
    hint: 'attach that disk, fusetap save it, and copy the saved file',
  });
}

function noImage(driver: string): FusetapError {
  return new FusetapError('USAGE', `driver ${driver} needs an image`, { hint: `give one as ${driver}:PATH` });
}
