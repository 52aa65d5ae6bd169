/**
 * The files of a bus, by node id and by name, and whether the kernel still has a reference to a file.
 *
 * Each answered lookup gives the kernel a reference, until a FORGET returns it. The count is exact if this server has
 * answered every lookup itself. For a file that an earlier server has shown, the count is not known.
 */
import { FusetapError } from '../../drivers/errors.js';
import { E } from '../../system/libc.js';
import type { BusFile } from './transport.js';

export interface TreeNode {
  /** replaced when its disk is swapped */
  file: BusFile;
  /** answered lookups without a FORGET yet; NaN if an earlier server answered some */
  lookups: number;
  /** the file is being detached: new lookups get ENOENT */
  leaving: boolean;
  /** the kernel does the I/O itself, on the file registered under this id; fixed at attach */
  backingId: number | null;
  /** the kernel maps the file registered under this id; a swap changes it while the file is not in use */
  mapId: number | null;
  /** lookups show it as another type of file, so that the kernel drops all its references to it */
  makesKernelForget: boolean;
}

/** Tells the tree of changes that a listing shows. */
class Node implements TreeNode {
  lookups: number;
  backingId: number | null;
  mapId: number | null;
  makesKernelForget = false;
  #file: BusFile;
  #leaving = false;
  readonly #changed: () => void;

  constructor(file: BusFile, changed: () => void) {
    this.lookups = file.inherited ? Number.NaN : 0;
    this.backingId = file.backingId;
    this.mapId = file.mapId ?? null;
    this.#file = file;
    this.#changed = changed;
  }

  get file(): BusFile {
    return this.#file;
  }

  set file(file: BusFile) {
    this.#file = file;
    this.#changed();
  }

  get leaving(): boolean {
    return this.#leaving;
  }

  set leaving(leaving: boolean) {
    this.#leaving = leaving;
    this.#changed();
  }
}

export class Tree {
  readonly #byId = new Map<number, TreeNode>();
  readonly #byName = new Map<string, TreeNode>();
  #changes = 0;
  /** the nodes that are not leaving, ordered; null after a change */
  #listed: TreeNode[] | null = null;

  /** Counts the changes of what a listing shows: another file, another disk, a file that leaves. */
  get changes(): number {
    return this.#changes;
  }

  add(file: BusFile): void {
    const node = new Node(file, () => this.#noteChange());
    this.#byId.set(file.nodeId, node);
    this.#byName.set(file.name, node);
    this.#noteChange();
  }

  #noteChange(): void {
    this.#changes += 1;
    this.#listed = null;
  }

  remove(nodeId: number): void {
    const node = this.#byId.get(nodeId);
    if (node === undefined) return;
    this.#noteChange();
    this.#byId.delete(nodeId);
    if (this.#byName.get(node.file.name) === node) this.#byName.delete(node.file.name);
  }

  byId(nodeId: number): TreeNode | undefined {
    return this.#byId.get(nodeId);
  }

  /** @throws FusetapError with EIO if the file was removed: its handles are still open, but its disk is closed */
  existing(nodeId: number): TreeNode {
    const node = this.#byId.get(nodeId);
    if (node === undefined) throw new FusetapError('NOT_FOUND', 'the vbd is gone', { errno: E.EIO });
    return node;
  }

  /** The node that a lookup of the name finds. */
  byName(name: string): TreeNode | undefined {
    const node = this.#byName.get(name);
    return node?.leaving && !node.makesKernelForget ? undefined : node;
  }

  /** @returns whether the kernel has no reference to the file any more */
  forget(nodeId: number, count: number): boolean {
    const node = this.#byId.get(nodeId);
    if (node === undefined) return false;
    node.lookups = Number.isNaN(node.lookups) ? 0 : Math.max(0, node.lookups - count);
    return node.lookups === 0;
  }

  /** The nodes of a listing after a cursor, ordered by node id. The order is stable, because ids are never reused. */
  after(cursor: number): TreeNode[] {
    this.#listed ??= [...this.#byId.values()]
      .filter((node) => !node.leaving)
      .sort((a, b) => a.file.nodeId - b.file.nodeId);
    return this.#listed.filter((node) => node.file.nodeId > cursor);
  }
}
