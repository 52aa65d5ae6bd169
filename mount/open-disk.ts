/**
 * Opens an image as a disk in this process, through its driver and filters, without a bus: for programs that read or
 * write the bytes that a vbd would show. The sharing rule applies as for a vbd (coherence rule 8).
 */
import { closeSync } from 'node:fs';
import { type Disk, frontDisk } from '../drivers/disk.js';
import type { ImageFile } from '../drivers/driver.js';
import { FusetapError } from '../drivers/errors.js';
import type { FilterSpec } from '../drivers/filters/filter.js';
import { withFilters } from '../drivers/filters/with-filters.js';
import {
  findNeeds,
  type NodeMemory,
  type OpenedGraph,
  openGraph,
  prepareNode,
  repairNode,
} from '../drivers/graph/open-graph.js';
import { type FilePlan, planGraph } from '../drivers/graph/plan.js';
import { filesOf, mainImage, type NodeSpec, nodeAt, treeOf } from '../drivers/graph.js';
import { quoted } from '../drivers/quote.js';
import { memfdCreate } from '../system/libc.js';
import { withFoundDrivers } from './client/disk-wish.js';
import { workingDirectory } from './client/finding/working-directory.js';
import { settleFilters } from './client/settle-filters.js';
import { claimImage } from './images/claim-image.js';
import type { Mode } from './images/mode.js';
import { openImage } from './images/open-image.js';
import { endsShown } from './images/refuse-foreign.js';

export interface OpenDiskRequest {
  /** a name, the path of a file, or the name of a package */
  readonly driver: string;
  /** absolute; null for a driver that takes none */
  readonly image: string | null;
  readonly mode: Mode;
  readonly options: Record<string, string>;
  /** a tree of drivers, in place of driver, image and options */
  readonly disk?: NodeSpec | undefined;
  /** see AttachRequest */
  readonly raw?: boolean | undefined;
  readonly filters: readonly FilterSpec[];
}

/** no bus is mounted there, so no image can lie on it */
const NO_BUS = { mountpoint: '/proc/self/no-bus' };

/**
 * Opens a disk. Its `close` frees everything, including the memory of a ram disk.
 * @throws FusetapError as an attach of the same image would
 */
export async function openDiskHere(request: OpenDiskRequest): Promise<Disk> {
  const filters = settleFilters(request.filters, workingDirectory, { provesRead: false });
  const graph = treeOf(withFoundDrivers(request, workingDirectory));
  const undo: (() => void)[] = [];
  const undoAll = (): void => {
    for (const step of undo.splice(0).reverse()) step();
  };
  try {
    const opened = await openHere(graph, request, undo);
    const disk = frontDisk(await withFilters(await openGraph(opened), filters), opened);
    const close = disk.close.bind(disk);
    disk.close = () => close().finally(undoAll);
    return disk;
  } catch (error) {
    undoAll();
    throw error;
  }
}

/** Opens what a tree needs. Images that name other files are opened by a bus only, which knows the rules for that. */
async function openHere(graph: NodeSpec, request: OpenDiskRequest, undo: (() => void)[]): Promise<OpenedGraph> {
  const plan = await planGraph(graph);
  const files: Record<string, ImageFile> = {};
  const memories: Record<string, NodeMemory> = {};
  for (const [path, name] of filesOf(graph))
    files[path] = await claim(name, plan.files[path] as FilePlan, request, undo);
  const repaired: string[] = [];
  const opened = { graph, files, memories, repaired, readOnly: request.mode === 'r' };
  const [need] = plan.mayNeed ? await findNeeds(opened) : [];
  if (need !== undefined) {
    throw new FusetapError('UNSUPPORTED', `the image names another file: ${quoted(need.name)}`, {
      hint: 'attach it to a bus: fusetap attach',
    });
  }
  const { signal } = new AbortController();
  const means = { signal, progress: () => {} };
  for (const path of request.mode === 'w' ? lowerFirst(plan.repair ?? []) : []) {
    await repairNode(opened, path, { path: mainImage(nodeAt(graph, path)) ?? '', ...means });
    repaired.push(path);
  }
  // those below first: a memory may be a copy of what another one shows
  for (const path of lowerFirst(Object.keys(plan.scratch))) {
    const memory = { fd: memfdCreate('fusetap-disk') };
    undo.push(() => closeSync(memory.fd));
    const work = { path: mainImage(graph) ?? '', ...means };
    memories[path] = { memory, state: await prepareNode(opened, path, memory, work) };
  }
  return opened;
}

/** The paths of nodes: that of a node above another is shorter. */
function lowerFirst(paths: readonly string[]): string[] {
  return [...paths].sort((a, b) => b.length - a.length);
}

async function claim(
  path: string,
  { isRead, isRaw }: FilePlan,
  { mode, raw = false, filters }: OpenDiskRequest,
  undo: (() => void)[],
): Promise<ImageFile> {
  const imageMode = isRead ? 'r' : mode;
  const image = await openImage(path, imageMode, NO_BUS, { recognize: isRaw && !raw ? endsShown(filters) : 'neither' });
  undo.push(() => closeSync(image.fd));
  const held = await claimImage(image, imageMode);
  undo.push(() => held.release());
  const { fd, sizeBytes, kind } = image;
  return { fd, path, sizeBytes, kind };
}
