/**
 * Opens an image as a disk in this process, through its driver and filters, without a bus: for programs that read or
 * write the bytes that a vbd would show. The sharing rule applies as for a vbd (coherence rule 8).
 */
import { closeSync, fstatSync } from 'node:fs';
import { basename } from 'node:path';
import { defined } from '../drivers/defined.js';
import { type Disk, frontDisk } from '../drivers/disk.js';
import type { ImageFile } from '../drivers/driver.js';
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
import { filesOf, lowerFirst, mainImage, type NodeSpec, nodeAt, treeOf } from '../drivers/graph.js';
import { memfdCreate } from '../system/libc.js';
import { withFoundDrivers } from './client/disk-wish.js';
import { workingDirectory } from './client/finding/working-directory.js';
import { settleFilters } from './client/settle-filters.js';
import { claimImage } from './images/claim-image.js';
import { refuseSecondWriter, refuseTwice } from './images/files-of-disk.js';
import { type Added, openNamedFiles } from './images/follow-names.js';
import type { Mode } from './images/mode.js';
import type { NamePolicy } from './images/named-file.js';
import { type OpenedImage, openImage } from './images/open-image.js';
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
  /** which files an image may name; default: `same-directory` */
  readonly backing?: NamePolicy | undefined;
  readonly filters: readonly FilterSpec[];
}

export interface OpenedHere {
  readonly disk: Disk;
  /** the paths of its files, by their descriptors */
  readonly filePaths: ReadonlyMap<number, string>;
}

/** no bus is mounted there, so no image can lie on it */
export const NO_BUS = { mountpoint: '/proc/self/no-bus' };

/**
 * Opens a disk. Its `close` frees everything, including the memory of a ram disk.
 * @throws FusetapError as an attach of the same image would
 */
export async function openDiskHere(request: OpenDiskRequest): Promise<Disk> {
  return (await openTreeHere(request)).disk;
}

/** As openDiskHere, with the names of what is open. */
export async function openTreeHere(request: OpenDiskRequest): Promise<OpenedHere> {
  const filters = settleFilters(request.filters, workingDirectory, { provesRead: false });
  const graph = treeOf(withFoundDrivers(request, workingDirectory));
  const opening = new Opening(request);
  try {
    const opened = await opening.open(graph);
    const disk = frontDisk(await withFilters(await openGraph(opened), filters), opened);
    const close = disk.close.bind(disk);
    disk.close = () => close().finally(() => opening.undo());
    return { disk, filePaths: opening.filePaths };
  } catch (error) {
    opening.undo();
    throw error;
  }
}

/** Opens what the disk of a tree needs. */
class Opening {
  readonly #request: OpenDiskRequest;
  readonly #files = new Map<string, { readonly image: OpenedImage; readonly mode: Mode }>();
  readonly #undo: (() => void)[] = [];

  constructor(request: OpenDiskRequest) {
    this.#request = request;
  }

  get filePaths(): Map<number, string> {
    return new Map([...this.#files.values()].map(({ image: { fd, path } }) => [fd, path]));
  }

  undo(): void {
    for (const step of this.#undo.splice(0).reverse()) step();
  }

  async open(asked: NodeSpec): Promise<OpenedGraph> {
    const { mode, backing = 'same-directory' } = this.#request;
    const first = await planGraph(asked);
    for (const [path, name] of filesOf(asked)) await this.#openFile(path, name, first.files[path] as FilePlan);
    const { graph, plan } = await openNamedFiles(asked, first, {
      policy: backing,
      files: this.#files,
      needs: async (tree, absent) => (first.mayNeed ? await findNeeds({ ...this.#opened(tree), absent }) : []),
      plan: planGraph,
      open: (added, filePlan) => this.#openFile(added.path, added.name, filePlan, added),
    });
    const repaired = mode === 'w' ? await this.#repair(graph, lowerFirst(plan.repair ?? [])) : [];
    const memories: Record<string, NodeMemory> = {};
    const opened = { ...this.#opened(graph), repaired, memories };
    // those below first: a memory may be a copy of what another one shows
    for (const path of lowerFirst(Object.keys(plan.scratch))) {
      const memory = { fd: memfdCreate('fusetap-disk') };
      this.#undo.push(() => closeSync(memory.fd));
      const work = { path: mainImage(graph) ?? '', ...silently() };
      memories[path] = { memory, state: await prepareNode(opened, path, memory, work) };
    }
    return opened;
  }

  async #repair(graph: NodeSpec, nodes: readonly string[]): Promise<string[]> {
    const repaired: string[] = [];
    for (const path of nodes) {
      const image = mainImage(nodeAt(graph, path)) ?? '';
      await repairNode({ ...this.#opened(graph), repaired }, path, { path: image, ...silently() });
      repaired.push(path);
    }
    return repaired;
  }

  #opened(graph: NodeSpec): OpenedGraph {
    const files = [...this.#files].map(([path, { image }]): [string, ImageFile] => {
      const { fd, kind, realPath } = image;
      // a repair may have made it larger
      const sizeBytes = kind === 'file' ? fstatSync(fd).size : image.sizeBytes;
      return [path, { fd, path: image.path, name: basename(realPath), sizeBytes, kind }];
    });
    return { graph, files: Object.fromEntries(files), memories: {}, readOnly: this.#request.mode === 'r' };
  }

  /** @param added if an image names the file: then the image says its format too */
  async #openFile(path: string, name: string, plan: FilePlan, added?: Added): Promise<void> {
    const { raw = false, filters } = this.#request;
    const mode = plan.isRead ? 'r' : this.#request.mode;
    refuseSecondWriter(name, plan, mode);
    const recognize = plan.isRaw && !raw ? endsShown(filters) : 'neither';
    const image = await openImage(name, mode, NO_BUS, added ? defined({ below: added.below }) : { recognize });
    this.#undo.push(() => closeSync(image.fd));
    added?.refuseCircle(image);
    refuseTwice(image, mode, this.#files.values());
    const held = await claimImage(image, mode);
    this.#undo.push(() => held.release());
    this.#files.set(path, { image, mode });
  }
}

/** Nobody looks at the progress, or can stop the work. */
function silently() {
  return { signal: new AbortController().signal, progress: () => {} };
}
