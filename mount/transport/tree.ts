/**
 * The files of a bus as the kernel knows them: by node id and by name, and whether the kernel still holds a reference.
 *
 * A lookup that was answered is a reference of the kernel's until FORGET gives it back. The count is exact while this
 * server has answered every lookup itself; for a file that an earlier server had shown, it is not known.
 */
import { FusetapError } from '../../drivers/errors.js';
import { E } from '../../system/libc.js';
import type { BusFile } from './transport.js';

export interface TreeNode {
  /** another one where its disk was swapped */
  file: BusFile;
  /** answered lookups that were not forgotten yet; NaN where an earlier server answered some */
  lookups: number;
  /** the file is being detached: new lookups get ENOENT */
  leaving: boolean;
  /** the kernel does the I/O itself, on what is registered under this id; decided at attach, the same for ever */
  backingId: number | null;
  /** lookups show it as something else, so that the kernel gives up all that it holds of it */
  poisoned: boolean;
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
      poisoned: false,
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

  /** @throws FusetapError with EIO where the file was taken away: its handles live on, its disk does not */
  existing(nodeId: number): TreeNode {
    const node = this.#byId.get(nodeId);
    if (node === undefined) throw new FusetapError('NOT_FOUND', 'the vbd is gone', { errno: E.EIO });
    return node;
  }

  /** What a lookup of the name finds. */
  byName(name: string): TreeNode | undefined {
    const node = this.#byName.get(name);
    return node?.leaving && !node.poisoned ? undefined : node;
  }

  /** @returns whether nobody can hold the file any more */
  forget(nodeId: number, count: number): boolean {
    const node = this.#byId.get(nodeId);
    if (node === undefined) return false;
    node.lookups = Number.isNaN(node.lookups) ? 0 : Math.max(0, node.lookups - count);
    return node.lookups === 0;
  }

  /** What a listing shows behind a cursor, in the order of node ids, which are never reused: a stable order. */
  after(cursor: number): TreeNode[] {
    return [...this.#byId.values()]
      .filter((node) => node.file.nodeId > cursor && !node.leaving)
      .sort((a, b) => a.file.nodeId - b.file.nodeId);
  }
}
