/**
 * Repairs the images of a tree before its disk is opened: the server's drivers finish what a crash left behind, the lower
 * nodes first. The files are claimed for writing, so no other process serves them.
 *
 * A swap may open a file that its vbd has open already. The old disk still uses the file then, so nothing is repaired: what
 * was repaired for the same driver stays repaired, and a file that another driver has is refused.
 */
import { type BigIntStats, fstat } from 'node:fs';
import { promisify } from 'node:util';
import { FusetapError } from '../../../drivers/errors.js';
import { hasThirdParty, lowerFirst, mainImage, nodeAt, nodesOf } from '../../../drivers/graph.js';
import { named } from '../../../drivers/quote.js';
import { locate, readMounts } from '../../../system/proc.js';
import type { CopyWatcher } from '../../control/progress.js';
import type { Answering } from '../../images/answering.js';
import { mainOf } from '../../images/follow-names.js';
import { inMs, type OpenedImage } from '../../images/open-image.js';
import { logEvent } from '../../runtime/log.js';
import type { VbdSource } from '../vbds/vbd.js';
import type { AttachContext } from './attach-context.js';
import { graphRef, type HeldTree } from './graph-ref.js';

const fstatAsync = promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>;

export interface RepairWish {
  readonly tree: HeldTree;
  /** the paths of the nodes whose drivers repair their images */
  readonly nodes: readonly string[];
  /** the source that a swap replaces */
  readonly old?: VbdSource | undefined;
}

export interface Repaired {
  /** the paths of the nodes that were repaired at this attach, or at that of the old source */
  readonly repaired: readonly string[];
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

/** @throws FusetapError BUSY if the vbd has a file of the tree open with another driver; errors of the drivers */
export async function repairTree(
  context: AttachContext,
  { tree, nodes, old }: RepairWish,
  watcher: CopyWatcher,
): Promise<Repaired> {
  const repaired: string[] = [];
  const notes: string[] = [];
  for (const node of lowerFirst(nodes)) {
    const shared = old === undefined ? undefined : sharedFile(tree, node, old);
    if (old !== undefined && shared !== undefined) {
      const same = sameNode(tree, node, old);
      if (same === undefined) throw isOpen(shared);
      if (old.repaired.includes(same)) repaired.push(node);
      continue;
    }
    const remarks = await repairNode(context, { ...tree, repaired }, node, watcher);
    repaired.push(node);
    notes.push(...remarks);
  }
  return { repaired, notes };
}

async function repairNode(
  { server, memories, answering }: AttachContext,
  tree: HeldTree,
  node: string,
  watcher: CopyWatcher,
): Promise<string[]> {
  const { signal } = watcher;
  signal.throwIfAborted();
  const image = mainImage(nodeAt(tree.graph, node));
  const command = { op: 'repair', disk: graphRef(tree, memories), node, path: image ?? '' } as const;
  const progress = watcher.repairProgress ?? watcher.progress;
  const once = hasThirdParty(tree.graph);
  const { notes } = await server.request<'repair'>(command, { signal, progress, once });
  for (const file of writtenBelow(tree, node)) await lookAgain(file, answering);
  for (const remark of notes) logEvent({ event: 'image-repaired', image, remark });
  return notes.map((remark) => (image === null ? remark : `${named(image)}: ${remark}`));
}

/** Notes the size and time that a repair has changed: they were not changed by somebody else. */
async function lookAgain(image: OpenedImage, answering: Answering): Promise<void> {
  const { fd, path, kind, realPath } = image;
  if (kind === 'block') return;
  const at = locate(await readMounts('self'), realPath);
  const look = (): Promise<BigIntStats> => fstatAsync(fd, { bigint: true });
  const { size, mtimeNs } = await answering.withinLimit({ path, at }, look);
  image.sizeBytes = Number(size);
  image.modifiedMs = inMs(mtimeNs);
}

/** The files that a node, or a node below it, writes. */
function writtenBelow({ files }: Pick<HeldTree, 'files'>, node: string): OpenedImage[] {
  const prefix = node === '' ? '' : `${node}/`;
  return [...files].flatMap(([path, { image, mode }]) => (path.startsWith(prefix) && mode !== 'r' ? [image] : []));
}

/** A file below a node that the old source writes. */
function sharedFile(tree: HeldTree, node: string, old: VbdSource): OpenedImage | undefined {
  const open = writtenBelow(old, '');
  return writtenBelow(tree, node).find((image) => open.includes(image));
}

/** The node of the old source that has the same driver over the same file. */
function sameNode(tree: HeldTree, node: string, old: VbdSource): string | undefined {
  const wanted = nodeAt(tree.graph, node);
  const main = mainOf(tree, node);
  return [...nodesOf(old.graph)].find(([path, { driver, options }]) => {
    const isSame = driver === wanted.driver && JSON.stringify(options) === JSON.stringify(wanted.options);
    return isSame && main !== undefined && mainOf(old, path) === main;
  })?.[0];
}

function isOpen({ path }: OpenedImage): FusetapError {
  return new FusetapError(
    'BUSY',
    `the vbd has ${named(path)} open with another driver: it cannot be repaired meanwhile`,
    {
      hint: 'detach the vbd, and attach the image again',
      path,
    },
  );
}
