/** The names of a bus, in its directory and in its directories of links: LOOKUP, FORGET, READLINK, READDIR, STATFS. */
import { errnoOf } from '../../../drivers/errors.js';
import { E } from '../../../system/libc.js';
import type { DiskNames } from '../../labels/disk-names.js';
import {
  kindOfDirectory,
  kindOfDirectoryId,
  NAME_KINDS,
  type NameKind,
  nameDirectory,
  nameDirectoryId,
  namedNode,
  nameLinkId,
} from '../../transport/by-name.js';
import {
  BY_SLOT,
  BY_SLOT_NODE_ID,
  findLink,
  linkedNode,
  linkNodeId,
  linksAfter,
  linkTarget,
} from '../../transport/by-slot.js';
import { sizesOfBus } from '../../transport/file-rules.js';
import type { Tree, TreeNode } from '../../transport/tree.js';
import * as abi from '../protocol/abi.js';
import { appendDirent } from '../protocol/message.js';
import type { AttributeCalls } from './attributes.js';
import type { Call } from './calls-under-way.js';
import type { Replies } from './replies.js';

const S_IFIFO = 0o010000;
const DT_DIR = 4;
const DT_REG = 8;
const DT_LNK = 10;

export interface DirectoryContext {
  readonly tree: Tree;
  forgotten(nodeId: number): void;
}

/** An entry of a directory; `offset` is the cursor after it. */
interface Entry {
  readonly nodeId: number;
  readonly offset: number;
  readonly type: number;
  readonly name: Buffer;
}

/** Above all node ids of vbds, and so small that it fits into the 31 bits of an old program's off_t. */
const DIRECTORY_CURSOR = 2 ** 30;

/** The directories of links, in the order of a listing. */
const DIRECTORIES: readonly Entry[] = [
  { nodeId: BY_SLOT_NODE_ID, name: BY_SLOT },
  ...NAME_KINDS.map((kind) => ({ nodeId: nameDirectoryId(kind), name: nameDirectory(kind) })),
].map(({ nodeId, name }, i) => ({ nodeId, offset: DIRECTORY_CURSOR + 2 + i, type: DT_DIR, name: Buffer.from(name) }));

export interface DirectoryParts {
  readonly attributes: AttributeCalls;
  readonly replies: Replies;
  readonly names: DiskNames;
}

export class Directory {
  readonly #context: DirectoryContext;
  readonly #attributes: AttributeCalls;
  readonly #replies: Replies;
  readonly #names: DiskNames;

  constructor(context: DirectoryContext, { attributes, replies, names }: DirectoryParts) {
    this.#context = context;
    this.#attributes = attributes;
    this.#replies = replies;
    this.#names = names;
  }

  lookup(call: Call): void {
    const { nodeId } = call.request;
    const name = call.request.name();
    const kind = kindOfDirectoryId(nodeId);
    if (name !== null && kind !== undefined) this.#later(call, () => this.#lookupName(call, kind, name));
    else if (name !== null && nodeId === abi.ROOT_NODE_ID) this.#lookupInRoot(call, name);
    else if (name !== null && nodeId === BY_SLOT_NODE_ID) this.#lookupLink(call, name);
    else this.#replies.refuse(call, E.ENOENT);
  }

  #lookupInRoot(call: Call, name: string): void {
    const node = this.#context.tree.byName(name);
    const kind = kindOfDirectory(name);
    // the kernel's references to directories and links are not counted, because these have no state
    if (name === BY_SLOT) this.#replies.sendEntry(call, this.#attributes.ofLinkDirectory());
    else if (kind !== undefined) this.#replies.sendEntry(call, this.#attributes.ofNameDirectory(kind));
    else if (node === undefined) this.#replies.refuse(call, E.ENOENT);
    else if (this.#sendFile(call, node)) node.lookups += 1;
  }

  #lookupLink(call: Call, name: string): void {
    const node = findLink(this.#context.tree, name);
    if (node === undefined) this.#replies.refuse(call, E.ENOENT);
    else this.#replies.sendEntry(call, this.#attributes.ofLink(node));
  }

  async #lookupName(call: Call, kind: NameKind, name: string): Promise<void> {
    const node = await this.#names.find(kind, name);
    if (node === undefined) this.#replies.refuse(call, E.ENOENT);
    else this.#replies.sendEntry(call, this.#attributes.ofNameLink(kind, node));
  }

  /** Answers when disks were read. */
  #later(call: Call, answer: () => Promise<void>): void {
    answer().catch((error: unknown) => this.#replies.refuse(call, errnoOf(error)));
  }

  #sendFile(call: Call, node: TreeNode): boolean {
    const attributes = this.#attributes.ofFile(node);
    if (!node.makesKernelForget) return this.#replies.sendEntry(call, attributes);
    // the same node with another file type: the kernel drops the inode, and old handles get EIO
    return this.#replies.sendEntry(call, { ...attributes, mode: S_IFIFO }, 1);
  }

  forget({ request }: Call): void {
    this.#forget(request.nodeId, request.bodyU64(0));
  }

  batchForget({ request }: Call): void {
    const count = request.bodyU32(0);
    for (let i = 0; i < count; i++) {
      const word = abi.IN_BODY + (abi.BATCH_FORGET_IN_SIZE + i * abi.BATCH_FORGET_ONE_SIZE) / 4;
      this.#forget(request.u64(word), request.u64(word + 2));
    }
  }

  #forget(nodeId: number, count: number): void {
    if (this.#context.tree.forget(nodeId, count)) this.#context.forgotten(nodeId);
  }

  readlink(call: Call): void {
    const { nodeId } = call.request;
    const { tree } = this.#context;
    const node = namedNode(tree, nodeId) ?? linkedNode(tree, nodeId);
    if (node === undefined) return this.#replies.refuse(call, nodeId > BY_SLOT_NODE_ID ? E.ENOENT : E.EINVAL);
    this.#replies.sendBytes(call, Buffer.from(linkTarget(node)));
  }

  opendir(call: Call): void {
    this.#replies.blank(abi.OPEN_OUT_SIZE);
    this.#replies.send(call, abi.OPEN_OUT_SIZE);
  }

  /**
   * Cursors: 1 after `.`, 2 after `..`, then 2 + the node id of the vbd, so removing one entry never moves another.
   * The directories of links come last.
   */
  readdir(call: Call): void {
    const { request } = call;
    const cursor = request.bodyU64(abi.RW_OFFSET);
    const kind = kindOfDirectoryId(request.nodeId);
    if (kind !== undefined) this.#later(call, () => this.#sendNames(call, kind, cursor));
    else {
      const { nodeId } = request;
      const others = nodeId === BY_SLOT_NODE_ID ? this.#links(cursor - 2) : this.#files(cursor - 2);
      this.#sendEntries(call, cursor, others);
    }
  }

  async #sendNames(call: Call, kind: NameKind, cursor: number): Promise<void> {
    const links = await this.#names.linksAfter(kind, Math.max(0, cursor - 2));
    const entries = links.map(({ name, node }) => {
      const offset = node.file.nodeId + 2;
      return { nodeId: nameLinkId(kind, node), offset, type: DT_LNK, name: Buffer.from(name) };
    });
    this.#sendEntries(call, cursor, entries);
  }

  /** @param others the entries after the cursor, but for `.` and `..` */
  #sendEntries(call: Call, cursor: number, others: readonly Entry[]): void {
    const { request } = call;
    const dots: Entry[] = [
      { nodeId: request.nodeId, offset: 1, type: DT_DIR, name: Buffer.from('.') },
      { nodeId: abi.ROOT_NODE_ID, offset: 2, type: DT_DIR, name: Buffer.from('..') },
    ];
    const limit = Math.min(request.bodyU32(abi.RW_SIZE), abi.MAX_WRITE);
    let length = 0;
    for (const entry of [...dots.slice(Math.min(cursor, 2)), ...others]) {
      const longer = appendDirent(this.#replies.buffer, length, limit, entry);
      if (longer < 0) break;
      length = longer;
    }
    this.#replies.send(call, length);
  }

  #files(after: number): Entry[] {
    const files = this.#context.tree.after(after).map(({ file: { nodeId, name } }) => {
      return { nodeId, offset: nodeId + 2, type: DT_REG, name: Buffer.from(name) };
    });
    return [...files, ...DIRECTORIES.filter(({ offset }) => offset - 2 > after)];
  }

  #links(after: number): Entry[] {
    return linksAfter(this.#context.tree, after).map(({ name, node }) => {
      return { nodeId: linkNodeId(node), offset: node.file.nodeId + 2, type: DT_LNK, name: Buffer.from(name) };
    });
  }

  statfs(call: Call): void {
    const files = this.#context.tree.after(0).map(({ file }) => file);
    const sizes = sizesOfBus(files);
    const reply = this.#replies.blank(abi.STATFS_OUT_SIZE);
    reply.bodyU64(abi.STATFS_BLOCKS, sizes.blocks);
    reply.bodyU64(abi.STATFS_FILES, sizes.files);
    reply.bodyU32(abi.STATFS_BSIZE, sizes.blockBytes);
    reply.bodyU32(abi.STATFS_NAMELEN, sizes.nameBytes);
    reply.bodyU32(abi.STATFS_FRSIZE, sizes.blockBytes);
    this.#replies.send(call, abi.STATFS_OUT_SIZE);
  }
}
