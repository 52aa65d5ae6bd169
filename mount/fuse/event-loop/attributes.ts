/** The attributes of the files, links and directories of a bus: GETATTR, SETATTR. */
import { E } from '../../../system/libc.js';
import type { Ledger } from '../../ledger/ledger.js';
import { kindOfDirectoryId, type NameKind, nameDirectoryId, namedNode, nameLinkId } from '../../transport/by-name.js';
import { BY_SLOT_NODE_ID, linkedNode, linkNodeId, linkTarget } from '../../transport/by-slot.js';
import {
  attributesOf,
  directoryAttributes,
  linkAttributes,
  type Ownership,
  refusalOfSize,
  SUBDIRECTORIES,
} from '../../transport/file-rules.js';
import type { Attributes, BusFile } from '../../transport/transport.js';
import type { Tree, TreeNode } from '../../transport/tree.js';
import * as abi from '../protocol/abi.js';
import type { Request } from '../protocol/message.js';
import type { Call } from './calls-under-way.js';
import type { Replies } from './replies.js';

export interface AttributeContext {
  readonly tree: Tree;
  readonly ledger: Ledger;
  readonly owner: Ownership;
  /** a program tried to set another size of the file and was refused */
  resizeRefused(file: BusFile, size: number): void;
}

export class AttributeCalls {
  readonly #context: AttributeContext;
  readonly #replies: Replies;

  constructor(context: AttributeContext, replies: Replies) {
    this.#context = context;
    this.#replies = replies;
  }

  ofFile({ file, backingId }: TreeNode): Attributes {
    return attributesOf(file, this.#context.ledger, backingId !== null);
  }

  ofLink(node: TreeNode): Attributes {
    return linkAttributes(linkNodeId(node), linkTarget(node), this.#context.owner);
  }

  ofLinkDirectory(): Attributes {
    return directoryAttributes(BY_SLOT_NODE_ID, this.#context.owner);
  }

  ofNameDirectory(kind: NameKind): Attributes {
    return directoryAttributes(nameDirectoryId(kind), this.#context.owner);
  }

  ofNameLink(kind: NameKind, node: TreeNode): Attributes {
    return linkAttributes(nameLinkId(kind, node), linkTarget(node), this.#context.owner);
  }

  getattr(call: Call): void {
    this.#replies.sendAttributes(call, this.#ofId(call.request.nodeId));
  }

  #ofId(nodeId: number): Attributes {
    const { tree, owner } = this.#context;
    if (nodeId === abi.ROOT_NODE_ID) return directoryAttributes(nodeId, owner, SUBDIRECTORIES);
    if (nodeId === BY_SLOT_NODE_ID) return this.ofLinkDirectory();
    if (kindOfDirectoryId(nodeId) !== undefined) return directoryAttributes(nodeId, owner);
    const named = namedNode(tree, nodeId);
    if (named !== undefined) return linkAttributes(nodeId, linkTarget(named), owner);
    const linked = linkedNode(tree, nodeId);
    return linked === undefined ? this.ofFile(tree.existing(nodeId)) : this.ofLink(linked);
  }

  setattr(call: Call): void {
    const { request } = call;
    if (!isFileId(request.nodeId)) return this.#replies.refuse(call, E.EPERM);
    const node = this.#context.tree.existing(request.nodeId);
    const refusal = this.#setSize(request, node.file);
    if (refusal !== 0) return this.#replies.refuse(call, refusal);
    this.#setOwner(request, node.file.ledgerIndex);
    this.#setTimes(request, node.file.ledgerIndex);
    this.#replies.sendAttributes(call, this.ofFile(node));
  }

  /** @returns the errno of the refusal, or 0 */
  #setSize(request: Request, file: BusFile): number {
    if (!(request.bodyU32(abi.SETATTR_VALID) & abi.FATTR_SIZE)) return 0;
    const size = request.bodyU64(abi.SETATTR_SIZE);
    const refusal = refusalOfSize(file, size);
    if (refusal !== 0) this.#context.resizeRefused(file, size);
    return refusal;
  }

  #setOwner(request: Request, ledgerIndex: number): void {
    const valid = request.bodyU32(abi.SETATTR_VALID);
    const owner: { mode?: number; uid?: number; gid?: number } = {};
    if (valid & abi.FATTR_MODE) owner.mode = request.bodyU32(abi.SETATTR_MODE) & 0o7777;
    if (valid & abi.FATTR_UID) owner.uid = request.bodyU32(abi.SETATTR_UID);
    if (valid & abi.FATTR_GID) owner.gid = request.bodyU32(abi.SETATTR_GID);
    this.#context.ledger.setOwner(ledgerIndex, owner);
  }

  #setTimes(request: Request, ledgerIndex: number): void {
    const { ledger } = this.#context;
    const valid = request.bodyU32(abi.SETATTR_VALID);
    const now = Date.now();
    if (valid & abi.FATTR_ATIME_NOW) ledger.setTimes(ledgerIndex, { atimeMs: now }, now);
    else if (valid & abi.FATTR_ATIME) {
      const nsec = request.bodyU32(abi.SETATTR_ATIME_NSEC);
      ledger.setTime(ledgerIndex, 'atime', request.bodyI64(abi.SETATTR_ATIME), nsec);
    }
    if (valid & abi.FATTR_MTIME_NOW) ledger.setTimes(ledgerIndex, { mtimeMs: now }, now);
    else if (valid & abi.FATTR_MTIME) {
      const nsec = request.bodyU32(abi.SETATTR_MTIME_NSEC);
      ledger.setTime(ledgerIndex, 'mtime', request.bodyI64(abi.SETATTR_MTIME), nsec);
    }
    ledger.touchChange(ledgerIndex, now);
  }
}

/** Whether a node is neither a directory nor a link. */
export function isFileId(nodeId: number): boolean {
  return nodeId !== abi.ROOT_NODE_ID && nodeId < BY_SLOT_NODE_ID;
}
