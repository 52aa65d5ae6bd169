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

export class Tree {
  readonly #byId = new Map<number, TreeNode>();
  readonly #byName = new Map<string, TreeNode>();

  add(file: BusFile): void {
    const node: TreeNode = {
      file,
      lookups: file.inherited ? Number.NaN : 0,
      leaving: false,
      backingId: file.backingId,
      mapId: file.mapId ?? null,
      makesKernelForget: false,
    };
    this.#byId.set(file.nodeId, node);
    this.#byName.set(file.name, node);
  }

  remove(nodeId: number): void {
    const node = this.#byId.get(nodeId);
    if (node === undefined) return;
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
    return [...this.#byId.values()]
      .filter((node) => node.file.nodeId > cursor && !node.leaving)
      .sort((a, b) => a.file.nodeId - b.file.nodeId);
  }
}
