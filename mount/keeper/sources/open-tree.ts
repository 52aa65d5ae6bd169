/**
 * Opens all that the tree of a disk needs: memories that others may share, then files, then the files that images name,
 * then memory of the disk's own.
 *
 *      shared memory (ram) ──► joined, or filled from what is below it (shared-memory.ts)
 *      files that the user names ──► opened and claimed, with the mode of the vbd or mode r
 *      server: what do the images need? ──► names looked up by the policy (follow-names.ts), opened, claimed … until nothing
 *      server: repair what a crash left behind (repair.ts)
 *      own memory (snapshot) ──► made
 *
 * The keeper never reads an image: it opens what the server's drivers ask for.
 */

import { defined } from '../../../drivers/defined.js';
import type { FilePlan, GraphPlan } from '../../../drivers/graph/plan.js';
import {
  entriesBelow,
  filesOf,
  hasThirdParty,
  lowerFirst,
  mainImage,
  type NodeSpec,
  nodeAt,
  nodesOf,
} from '../../../drivers/graph.js';
import { factsOf } from '../../../drivers/names.js';
import type { BackingPolicy } from '../../control/interface.js';
import type { CopyWatcher } from '../../control/progress.js';
import { refuseSecondWriter, refuseTwice } from '../../images/files-of-disk.js';
import { type Added, openNamedFiles } from '../../images/follow-names.js';
import type { Mode } from '../../images/mode.js';
import type { OpenedImage } from '../../images/open-image.js';
import type { RecognizedEnds } from '../../images/refuse-foreign.js';
import type { Filling, RamImage } from '../../ram/ram-images.js';
import type { Holdings } from '../vbds/holdings.js';
import type { SourceFile, VbdSource } from '../vbds/vbd.js';
import { type AttachContext, ownBus } from './attach-context.js';
import { keptDisk } from './claim-remote.js';
import { graphRef, type HeldTree } from './graph-ref.js';
import { repairTree } from './repair.js';
import { joinOrFill, recopy, type SharedTree } from './shared-memory.js';

/** How a tree is opened. */
export interface TreeWish {
  /** of the vbd; `r` for what is only copied */
  readonly mode: Mode;
  /** the name of the memory of the top; null: it is found by its image */
  readonly share: string | null;
  /** the ends of files that are shown as they are */
  readonly recognize: RecognizedEnds;
  readonly backing: BackingPolicy;
  /** gets what is opened */
  readonly holdings: Holdings;
  /** the source that this one replaces: a file that is open there already is shared */
  readonly old?: VbdSource | undefined;
}

/** A tree, with the files that images name, and what is open for it. */
export interface OpenedTree extends HeldTree {
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

export class TreeOpening {
  readonly #context: AttachContext;
  readonly #wish: TreeWish;
  readonly #watcher: CopyWatcher;
  readonly #files = new Map<string, SourceFile>();
  readonly #memories = new Map<string, RamImage>();
  #repaired: readonly string[] = [];
  readonly #notes: string[] = [];

  constructor(context: AttachContext, wish: TreeWish, watcher: CopyWatcher) {
    this.#context = context;
    this.#wish = wish;
    this.#watcher = watcher;
  }

  /** @throws FusetapError if anything cannot be opened; the owner of the holdings releases what was opened until then */
  async open(graph: NodeSpec, plan: GraphPlan): Promise<OpenedTree> {
    const shared = outermost(Object.keys(plan.scratch).filter((path) => plan.scratch[path] === 'shared'));
    for (const path of shared) await this.#openShared(graph, plan, path);
    await this.#openFiles(graph, plan);
    const { graph: found, plan: whole } = plan.mayNeed ? await this.#openNamed(graph, plan) : { graph, plan };
    await this.#repair(found, whole);
    const own = Object.keys(plan.scratch).filter((path) => plan.scratch[path] === 'own' && !isBelowAny(path, shared));
    for (const path of lowerFirst(own)) await this.#makeOwn(found, path);
    return { ...this.#held(found), notes: this.#notes };
  }

  #held(graph: NodeSpec): HeldTree {
    return { graph, files: this.#files, memories: this.#memories, repaired: this.#repaired };
  }

  #keep(path: string, memory: RamImage): void {
    const { memories } = this.#context;
    this.#wish.holdings.own('a ram image', () => memories.release(memory));
    this.#memories.set(path, memory);
  }

  #useAsBase(memory: RamImage): void {
    const { memories } = this.#context;
    memories.useAsBase(memory);
    this.#wish.holdings.own('a base in memory', () => memories.releaseBase(memory));
  }

  async #openShared(graph: NodeSpec, plan: GraphPlan, path: string): Promise<void> {
    const { recognize, backing, share } = this.#wish;
    const below = nodeAt(graph, path);
    const part = { graph: below, plan: planBelow(plan, path, below) };
    const openBelow = belowOpener(this.#context, part, backing, this.#watcher);
    const wish = { recognize, share: path === '' ? share : null, openBelow };
    const { memory, notes } = await joinOrFill(this.#context, part, wish, this.#watcher);
    this.#keep(path, memory);
    if (path !== '') this.#useAsBase(memory);
    this.#notes.push(...notes);
  }

  /** Opens the files of the tree that are not open yet, and not below shared memory. */
  async #openFiles(graph: NodeSpec, { files }: GraphPlan): Promise<void> {
    for (const [path, name] of filesOf(graph)) {
      if (this.#files.has(path) || isBelowAny(path, [...this.#memories.keys()])) continue;
      await this.#openFile(path, name, files[path] as FilePlan);
    }
  }

  /** @param added if an image names the file: then the image says its format too */
  async #openFile(
    path: string,
    name: string,
    { isRead, isRaw, grows = false }: FilePlan,
    added?: Added,
  ): Promise<void> {
    const { holdings, old, recognize } = this.#wish;
    const mode = isRead ? 'r' : this.#wish.mode;
    refuseSecondWriter(name, { grows }, mode);
    const { describePid } = this.#context;
    const wish = { path: name, mode, ownBus: ownBus(this.#context), describePid } as const;
    const how =
      added === undefined
        ? { recognize: isRaw ? recognize : ('neither' as const) }
        : defined({ below: added.below, check: (image: OpenedImage) => added.refuseCircle(image) });
    const image = await holdings.file({ ...wish, ...how }, old?.holdings);
    refuseTwice(image, mode, this.#files.values());
    this.#files.set(path, { image, mode, grows });
    this.#watcher.signal.throwIfAborted();
  }

  /** Opens what the images name, until they need nothing more. */
  #openNamed(asked: NodeSpec, first: GraphPlan): Promise<{ graph: NodeSpec; plan: GraphPlan }> {
    const { server, memories } = this.#context;
    const once = hasThirdParty(asked);
    return openNamedFiles(asked, first, {
      policy: this.#wish.backing,
      files: this.#files,
      needs: async (graph, absent) => {
        const disk = graphRef(this.#held(graph), memories);
        return (await server.request<'needs'>({ op: 'needs', disk, absent }, { once })).needs;
      },
      plan: (graph) => server.request<'plan'>({ op: 'plan', graph, filters: [] }),
      open: (added, plan) => this.#openFile(added.path, added.name, plan, added),
    });
  }

  async #repair(graph: NodeSpec, { repair = [] }: GraphPlan): Promise<void> {
    const { mode, old } = this.#wish;
    // with mode w! others may have the image too
    if (mode !== 'w') return;
    const nodes = repair.filter((path) => !isBelowAny(path, [...this.#memories.keys()]));
    const { repaired, notes } = await repairTree(this.#context, { tree: this.#held(graph), nodes, old }, this.#watcher);
    this.#repaired = repaired;
    this.#notes.push(...notes);
  }

  async #makeOwn(graph: NodeSpec, path: string): Promise<void> {
    const { memories, server } = this.#context;
    const { signal, progress } = this.#watcher;
    const image = mainImage(nodeAt(graph, path)) ?? '';
    const disk = graphRef(this.#held(graph), memories);
    const place = { disk, node: path, path: image };
    const filling: Filling = {
      measure: () => server.request<'measure'>({ op: 'measure', ...place }, { signal }),
      fill: async (memoryFd) => {
        const { state } = await server.request<'prepare'>({ op: 'prepare', ...place, memoryFd }, { signal, progress });
        return state;
      },
    };
    this.#keep(path, await memories.own({ driver: nodeAt(graph, path).driver, image, sizeBytes: 0 }, filling));
  }
}

type CopyWish = Pick<TreeWish, 'recognize' | 'backing'>;

/**
 * Opens what is below the top of a tree, whose memory is filled from it: for reading only. What the main file looks like
 * was checked when it was opened to find the memory.
 */
function belowOpener(
  context: AttachContext,
  { graph, plan }: SharedTree,
  backing: BackingPolicy,
  watcher: CopyWatcher,
): (holdings: Holdings) => Promise<OpenedTree> {
  const scratch = Object.fromEntries(Object.entries(plan.scratch).filter(([path]) => path !== ''));
  return async (holdings) => {
    const opening = new TreeOpening(
      context,
      { recognize: 'neither', backing, mode: 'r', share: null, holdings },
      watcher,
    );
    const opened = await opening.open(graph, { ...plan, scratch });
    return { ...opened, kept: await keptDisk(context, plan, 'r', holdings) };
  };
}

/** Makes a new copy to replace a ram image that only one vbd uses. The caller has both then. */
export function copyAgain(
  context: AttachContext,
  tree: SharedTree,
  { recognize, backing, old }: CopyWish & { readonly old: RamImage },
  watcher: CopyWatcher,
): Promise<RamImage> {
  const openBelow = belowOpener(context, tree, backing, watcher);
  return recopy(context, tree, { old, recognize, openBelow }, watcher);
}

/** The paths that are not below another one. */
function outermost(paths: readonly string[]): string[] {
  return paths.filter((path) => !isBelowAny(path, paths));
}

function isBelowAny(path: string, nodes: readonly string[]): boolean {
  return nodes.some((node) => path !== node && (node === '' || path.startsWith(`${node}/`)));
}

function planBelow(
  { files, scratch, mayNeed, claims, claimsRead }: GraphPlan,
  path: string,
  below: NodeSpec,
): GraphPlan {
  const isRemote = [...nodesOf(below).values()].some(({ driver }) => factsOf(driver)?.isRemote);
  const remote = isRemote ? defined({ claims, claimsRead }) : {};
  return { files: entriesBelow(files, path), scratch: entriesBelow(scratch, path), mayNeed, ...remote };
}
