/**
 * All requests that threads do not serve: names, attributes, handles, the directory; and I/O of disks that are no
 * windows. Runs on the main thread's event loop. Replies go out on the descriptor that the request came from.
 *
 * Refusals are chosen with care, because the kernel remembers ENOSYS for the whole connection: it stands only where
 * "off for good" is meant. What would change the directory is EPERM.
 */
import { errnoOf } from '../../../drivers/errors.js';
import { E, write } from '../../../system/libc.js';
import { allocateResident } from '../../../system/resident.js';
import { type CounterPages, countRequest, NOT_COUNTED, now, READ } from '../../ledger/counters.js';
import { type Ledger, MAIN_WORK_START, WORK_PLACES } from '../../ledger/ledger.js';
import {
  BY_SLOT,
  BY_SLOT_NODE_ID,
  findLink,
  linkedNode,
  linkNodeId,
  linksAfter,
  linkTarget,
} from '../../transport/by-slot.js';
import {
  attributesOf,
  directoryAttributes,
  flushFile,
  linkAttributes,
  type Ownership,
  refusalOfOpen,
  refusalOfSize,
  sizesOfBus,
} from '../../transport/file-rules.js';
import { Handles } from '../../transport/handles.js';
import { IoGate } from '../../transport/io-gate.js';
import type { Attributes, BusFile } from '../../transport/transport.js';
import type { Tree, TreeNode } from '../../transport/tree.js';
import * as abi from '../protocol/abi.js';
import { appendDirent, isOneWay, isWellFormed, Reply, Request, writeAttributes } from '../protocol/message.js';
import { crashPoint } from '../thread/crash-point.js';
import { blockIoctl } from './block-ioctl.js';
import { allocateDisk, kindOf, rangeOf, readDisk, seekDisk, writeDisk } from './serve-disk.js';

const S_IFIFO = 0o010000;
const DT_DIR = 4;
const DT_REG = 8;
const DT_LNK = 10;

export interface DispatchContext {
  readonly deviceFds: readonly number[];
  readonly tree: Tree;
  readonly ledger: Ledger;
  /** where the main thread counts */
  readonly counters: CounterPages;
  readonly owner: Ownership;
  /** whether threads already do this file's I/O, so that an FSYNC that arrives here was tried and failed */
  isThreaded(nodeId: number): boolean;
  /** does what changes a file that threads may be writing at the same time */
  writeBeside<Result>(nodeId: number, write: () => Promise<Result>): Promise<Result>;
  forgotten(nodeId: number): void;
  /** a program was refused another size for the file */
  resizeRefused(file: BusFile, size: number): void;
}

/** An entry of a directory; `offset` is the cursor behind it. */
interface Entry {
  readonly nodeId: number;
  readonly offset: number;
  readonly type: number;
  readonly name: Buffer;
}

/** A request whose answer is being made; the buffer of the reply is shared, so it is filled and sent in one go. */
interface Call {
  readonly request: Request;
  readonly thread: number;
  /** its place among the ledger's work records; −1 where all are taken */
  readonly place: number;
  readonly begunMs: number;
}

export class Dispatcher {
  readonly #context: DispatchContext;
  readonly #handles: Handles;
  readonly #reply: Reply;
  readonly #replyAddress: number;
  readonly #gate = new IoGate();
  readonly #freePlaces = Array.from({ length: WORK_PLACES - MAIN_WORK_START }, (_, i) => MAIN_WORK_START + i);

  constructor(context: DispatchContext) {
    this.#context = context;
    this.#handles = new Handles(context.ledger);
    // replies of the main thread leave from resident memory too, one at a time
    const resident = allocateResident(abi.OUT_HEADER_SIZE + abi.MAX_WRITE);
    this.#reply = new Reply(resident.bytes);
    this.#replyAddress = resident.address;
  }

  /** Answers one request, now or later. Never throws. */
  dispatch(thread: number, bytes: Uint8Array): void {
    const request = new Request(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    const place = this.#freePlaces.pop() ?? -1;
    const call = { request, thread, place, begunMs: now() };
    if (place >= 0) this.#context.ledger.beginWork(place, request.uniqueId);
    if (isWellFormed(request, bytes.byteLength)) this.#answer(call);
    else if (bytes.byteLength >= abi.IN_HEADER_SIZE && !isOneWay(request.opcode)) this.#refuse(call, E.EINVAL);
    else this.#endWork(call);
  }

  #answer(call: Call): void {
    const isTwoWay = !isOneWay(call.request.opcode);
    if (crashPoint !== null) crashPoint('io', call.request.opcode);
    try {
      this.#route(call);
    } catch (error) {
      if (isTwoWay) this.#refuse(call, errnoOf(error));
    }
    if (!isTwoWay) this.#endWork(call);
  }

  /** From now on I/O of the file waits; resolves when none is under way any more. */
  hold(nodeId: number): Promise<void> {
    return this.#gate.hold(nodeId);
  }

  /** Answers what has waited, in the order it came. */
  release(nodeId: number): void {
    this.#gate.release(nodeId);
  }

  /**
   * A request that is put aside is not worked on: where this server dies, it is no evidence against the request.
   * @returns whether the request was put aside until its file is released
   */
  #putAside(call: Call): boolean {
    const { ledger } = this.#context;
    const { place, request } = call;
    const isHeld = this.#gate.putAside(request.nodeId, () => {
      if (place >= 0) ledger.beginWork(place, request.uniqueId);
      this.#answer(call);
    });
    if (isHeld && place >= 0) ledger.leaveWork(place);
    return isHeld;
  }

  #endWork({ place }: Call): void {
    if (place < 0) return;
    this.#context.ledger.endWork(place);
    this.#freePlaces.push(place);
  }

  #route(call: Call): void {
    const { opcode } = call.request;
    switch (opcode) {
      case abi.LOOKUP:
        return this.#lookup(call);
      case abi.FORGET:
        return this.#forget(call.request.nodeId, call.request.bodyU64(0));
      case abi.BATCH_FORGET:
        return this.#batchForget(call.request);
      case abi.GETATTR:
        return this.#getattr(call);
      case abi.SETATTR:
        return this.#setattr(call);
      case abi.OPEN:
        return this.#open(call);
      case abi.RELEASE:
        this.#handles.close(call.request.bodyU64(abi.RELEASE_FH));
        return this.#ok(call);
      case abi.READDIR:
        return this.#readdir(call);
      case abi.OPENDIR:
        return this.#opendir(call);
      case abi.STATFS:
        return this.#statfs(call);
      case abi.READ:
      case abi.WRITE:
      case abi.FSYNC:
      case abi.FALLOCATE:
      case abi.LSEEK:
        return this.#io(call);
      case abi.IOCTL:
        return this.#ioctl(call);
      case abi.FLUSH:
      case abi.RELEASEDIR:
      case abi.FSYNCDIR:
      case abi.SYNCFS:
        return this.#ok(call);
      case abi.CREATE:
      case abi.MKNOD:
      case abi.MKDIR:
      case abi.UNLINK:
      case abi.RMDIR:
      case abi.RENAME:
      case abi.RENAME2:
      case abi.LINK:
      case abi.SYMLINK:
      case abi.TMPFILE:
        return this.#refuse(call, E.EPERM);
      case abi.READLINK:
        return this.#readlink(call);
      case abi.DESTROY:
        return this.#ok(call);
      default:
        // xattrs, ACCESS, INTERRUPT, POLL, STATX, COPY_FILE_RANGE, …: off for good, the kernel does without
        return this.#refuse(call, E.ENOSYS);
    }
  }

  #lookup(call: Call): void {
    const { nodeId } = call.request;
    const name = call.request.name();
    if (nodeId === BY_SLOT_NODE_ID) return this.#lookupLink(call, name);
    const isInRoot = nodeId === abi.ROOT_NODE_ID;
    if (isInRoot && name === BY_SLOT) return this.#sendEntry(call, this.#linksAttributes());
    const node = isInRoot && name !== null ? this.#context.tree.byName(name) : undefined;
    if (node === undefined) return this.#refuse(call, E.ENOENT);
    const reply = this.#reply;
    reply.clearBody(abi.ENTRY_OUT_SIZE);
    reply.bodyU64(0, node.file.nodeId);
    const attributes = this.#attributes(node);
    if (node.poisoned) {
      // the same node as something else: the kernel gives up the inode, and old handles get EIO
      reply.bodyU64(2, 1);
      attributes.mode = S_IFIFO;
    }
    writeAttributes(reply, abi.ENTRY_ATTR, attributes);
    // ENOENT: the client is gone, and there is no reference to be forgotten
    if (this.#send(call, abi.ENTRY_OUT_SIZE) !== -E.ENOENT) node.lookups += 1;
  }

  #lookupLink(call: Call, name: string | null): void {
    const node = name === null ? undefined : findLink(this.#context.tree, name);
    if (node === undefined) this.#refuse(call, E.ENOENT);
    else this.#sendEntry(call, this.#linkAttributes(node));
  }

  /** Of what has no state: nobody counts who holds it. */
  #sendEntry(call: Call, attributes: Attributes): void {
    this.#reply.clearBody(abi.ENTRY_OUT_SIZE);
    this.#reply.bodyU64(0, attributes.nodeId);
    writeAttributes(this.#reply, abi.ENTRY_ATTR, attributes);
    this.#send(call, abi.ENTRY_OUT_SIZE);
  }

  #readlink(call: Call): void {
    const { nodeId } = call.request;
    const node = linkedNode(this.#context.tree, nodeId);
    if (node === undefined) return this.#refuse(call, nodeId > BY_SLOT_NODE_ID ? E.ENOENT : E.EINVAL);
    const target = Buffer.from(linkTarget(node));
    this.#reply.bytes.set(target, abi.OUT_HEADER_SIZE);
    this.#send(call, target.length);
  }

  #forget(nodeId: number, count: number): void {
    if (this.#context.tree.forget(nodeId, count)) this.#context.forgotten(nodeId);
  }

  #batchForget(request: Request): void {
    const count = request.bodyU32(0);
    for (let i = 0; i < count; i++) {
      const word = abi.IN_BODY + (abi.BATCH_FORGET_IN_SIZE + i * abi.BATCH_FORGET_ONE_SIZE) / 4;
      this.#forget(request.u64(word), request.u64(word + 2));
    }
  }

  #getattr(call: Call): void {
    this.#sendAttributes(call, this.#attributesOfId(call.request.nodeId));
  }

  #setattr(call: Call): void {
    const { request } = call;
    if (request.nodeId === abi.ROOT_NODE_ID || request.nodeId >= BY_SLOT_NODE_ID) return this.#refuse(call, E.EPERM);
    const valid = request.bodyU32(abi.SETATTR_VALID);
    const node = this.#node(request.nodeId);
    const { ledger } = this.#context;
    const index = node.file.ledgerIndex;
    if (valid & abi.FATTR_SIZE) {
      const size = request.bodyU64(abi.SETATTR_SIZE);
      const refusal = refusalOfSize(node.file, size);
      if (refusal !== 0) {
        this.#context.resizeRefused(node.file, size);
        return this.#refuse(call, refusal);
      }
    }
    const owner: { mode?: number; uid?: number; gid?: number } = {};
    if (valid & abi.FATTR_MODE) owner.mode = request.bodyU32(abi.SETATTR_MODE) & 0o7777;
    if (valid & abi.FATTR_UID) owner.uid = request.bodyU32(abi.SETATTR_UID);
    if (valid & abi.FATTR_GID) owner.gid = request.bodyU32(abi.SETATTR_GID);
    ledger.setOwner(index, owner);
    this.#setTimes(request, valid, index);
    this.#sendAttributes(call, this.#attributes(node));
  }

  #setTimes(request: Request, valid: number, index: number): void {
    const { ledger } = this.#context;
    const now = Date.now();
    if (valid & abi.FATTR_ATIME_NOW) ledger.setTimes(index, { atimeMs: now }, now);
    else if (valid & abi.FATTR_ATIME) {
      const nsec = request.bodyU32(abi.SETATTR_ATIME_NSEC);
      ledger.setTime(index, 'atime', request.bodyI64(abi.SETATTR_ATIME), nsec);
    }
    if (valid & abi.FATTR_MTIME_NOW) ledger.setTimes(index, { mtimeMs: now }, now);
    else if (valid & abi.FATTR_MTIME) {
      const nsec = request.bodyU32(abi.SETATTR_MTIME_NSEC);
      ledger.setTime(index, 'mtime', request.bodyI64(abi.SETATTR_MTIME), nsec);
    }
    ledger.touchChange(index, now);
  }

  #open(call: Call): void {
    const { request } = call;
    const node = this.#context.tree.byId(request.nodeId);
    if (node === undefined || node.leaving) return this.#refuse(call, E.ENOENT);
    const { backingId } = node;
    // what is passed through cannot be held later, so it must not begin
    if (backingId !== null && this.#putAside(call)) return;
    const flags = request.bodyU32(abi.OPEN_FLAGS);
    const refusal = refusalOfOpen(flags, node.file.disk.readOnly);
    if (refusal !== 0) return this.#refuse(call, refusal);
    const fh = request.uniqueId;
    const handle = { fh, nodeId: request.nodeId, pid: request.pid, flags };
    if (!this.#handles.open(handle, node.file.ledgerIndex)) return this.#refuse(call, E.ENFILE);
    const reply = this.#reply;
    reply.clearBody(abi.OPEN_OUT_SIZE);
    reply.bodyU64(0, fh);
    if (backingId === null) {
      reply.bodyU32(2, abi.FOPEN_DIRECT_IO | abi.FOPEN_NOFLUSH | abi.FOPEN_PARALLEL_DIRECT_WRITES);
    } else {
      reply.bodyU32(2, abi.FOPEN_PASSTHROUGH | abi.FOPEN_NOFLUSH);
      reply.bodyU32(3, backingId);
    }
    // the client was killed meanwhile: there will be no RELEASE
    if (this.#send(call, abi.OPEN_OUT_SIZE) === -E.ENOENT) this.#handles.close(fh);
  }

  #opendir(call: Call): void {
    this.#reply.clearBody(abi.OPEN_OUT_SIZE);
    this.#send(call, abi.OPEN_OUT_SIZE);
  }

  /**
   * Cursors: 1 behind `.`, 2 behind `..`, then 2 + the node id of the vbd; so an entry that goes never moves another. The
   * directory of links comes last.
   */
  #readdir(call: Call): void {
    const { nodeId } = call.request;
    const cursor = call.request.bodyU64(abi.RW_OFFSET);
    const limit = Math.min(call.request.bodyU32(abi.RW_SIZE), abi.MAX_WRITE);
    const dots: Entry[] = [
      { nodeId, offset: 1, type: DT_DIR, name: Buffer.from('.') },
      { nodeId: abi.ROOT_NODE_ID, offset: 2, type: DT_DIR, name: Buffer.from('..') },
    ];
    const entries = nodeId === BY_SLOT_NODE_ID ? this.#links(cursor - 2) : this.#files(cursor - 2);
    let length = 0;
    for (const entry of [...dots.slice(Math.min(cursor, 2)), ...entries]) {
      const longer = appendDirent(this.#reply, length, limit, entry);
      if (longer < 0) break;
      length = longer;
    }
    this.#send(call, length);
  }

  #files(after: number): Entry[] {
    const files = this.#context.tree.after(after).map(({ file: { nodeId, name } }) => {
      return { nodeId, offset: nodeId + 2, type: DT_REG, name: Buffer.from(name) };
    });
    if (after >= BY_SLOT_NODE_ID) return files;
    const offset = BY_SLOT_NODE_ID + 2;
    return [...files, { nodeId: BY_SLOT_NODE_ID, offset, type: DT_DIR, name: Buffer.from(BY_SLOT) }];
  }

  #links(after: number): Entry[] {
    return linksAfter(this.#context.tree, after).map(({ name, node }) => {
      return { nodeId: linkNodeId(node), offset: node.file.nodeId + 2, type: DT_LNK, name: Buffer.from(name) };
    });
  }

  #statfs(call: Call): void {
    const reply = this.#reply;
    reply.clearBody(abi.STATFS_OUT_SIZE);
    const { blockBytes, blocks, files, nameBytes } = sizesOfBus(this.#context.tree.after(0).map(({ file }) => file));
    reply.bodyU64(abi.STATFS_BLOCKS, blocks);
    reply.bodyU64(abi.STATFS_FILES, files);
    reply.bodyU32(abi.STATFS_BSIZE, blockBytes);
    reply.bodyU32(abi.STATFS_NAMELEN, nameBytes);
    reply.bodyU32(abi.STATFS_FRSIZE, blockBytes);
    this.#send(call, abi.STATFS_OUT_SIZE);
  }

  /** Answers what programs ask of a block device; every other ioctl is ENOTTY, as for a regular file. */
  #ioctl(call: Call): void {
    const { request } = call;
    const command = request.bodyU32(abi.IOCTL_CMD);
    const isFile = request.nodeId !== abi.ROOT_NODE_ID && request.nodeId < BY_SLOT_NODE_ID;
    const answer = isFile ? blockIoctl(command, this.#node(request.nodeId).file.disk) : null;
    if (answer === null || request.bodyU32(abi.IOCTL_OUT_SIZE) < answer.length) return this.#refuse(call, E.ENOTTY);
    this.#reply.clearBody(abi.IOCTL_OUT_HEADER_SIZE);
    this.#reply.bytes.set(answer, abi.OUT_HEADER_SIZE + abi.IOCTL_OUT_HEADER_SIZE);
    this.#send(call, abi.IOCTL_OUT_HEADER_SIZE + answer.length);
  }

  #io(call: Call): void {
    if (this.#putAside(call)) return;
    const work = this.#doIo(call).catch((error: unknown) => {
      this.#noteFailure(call.request);
      this.#refuse(call, errnoOf(error));
    });
    this.#gate.track(call.request.nodeId, work);
  }

  #noteFailure({ nodeId, opcode }: Request): void {
    const file = this.#context.tree.byId(nodeId)?.file;
    const isWrite = opcode === abi.WRITE || opcode === abi.FALLOCATE;
    if (file !== undefined && isWrite) this.#context.ledger.noteFailedWrite(file.ledgerIndex);
  }

  async #doIo(call: Call): Promise<void> {
    const { request } = call;
    const { file } = this.#node(request.nodeId);
    const { ledger, writeBeside } = this.#context;
    switch (request.opcode) {
      case abi.READ: {
        const data = await readDisk(file.disk, request);
        this.#reply.bytes.set(data, abi.OUT_HEADER_SIZE);
        this.#send(call, data.byteLength);
        return;
      }
      case abi.WRITE: {
        const n = await writeBeside(file.nodeId, () => writeDisk(file.disk, request));
        ledger.noteWrite(file.ledgerIndex, Date.now());
        return this.#sendU64(call, n);
      }
      case abi.FALLOCATE:
        await writeBeside(file.nodeId, () => allocateDisk(file.disk, request));
        ledger.noteWrite(file.ledgerIndex, Date.now());
        return this.#ok(call);
      case abi.LSEEK:
        return this.#sendU64(call, await seekDisk(file.disk, request));
      default:
        return this.#fsync(call);
    }
  }

  async #fsync(call: Call): Promise<void> {
    const { file } = this.#node(call.request.nodeId);
    const { ledger, isThreaded } = this.#context;
    if (!isThreaded(file.nodeId)) await flushFile(file, ledger);
    const errno = this.#handles.takeFlushError(call.request.bodyU64(abi.FSYNC_FH), file.ledgerIndex);
    if (errno === 0) this.#ok(call);
    else this.#refuse(call, errno);
  }

  /** @throws with EIO where the file was taken away: its handles live on, its disk does not */
  #node(nodeId: number): TreeNode {
    const node = this.#context.tree.byId(nodeId);
    if (node === undefined) throw Object.assign(new Error('the vbd is gone'), { errno: E.EIO });
    return node;
  }

  #attributes({ file, backingId }: TreeNode): Attributes {
    return attributesOf(file, this.#context.ledger, backingId !== null);
  }

  #attributesOfId(nodeId: number): Attributes {
    if (nodeId === abi.ROOT_NODE_ID) return directoryAttributes(nodeId, this.#context.owner, 1);
    if (nodeId === BY_SLOT_NODE_ID) return this.#linksAttributes();
    const linked = linkedNode(this.#context.tree, nodeId);
    return linked === undefined ? this.#attributes(this.#node(nodeId)) : this.#linkAttributes(linked);
  }

  #linksAttributes(): Attributes {
    return directoryAttributes(BY_SLOT_NODE_ID, this.#context.owner);
  }

  #linkAttributes(node: TreeNode): Attributes {
    return linkAttributes(linkNodeId(node), linkTarget(node), this.#context.owner);
  }

  #sendAttributes(call: Call, attributes: Attributes): void {
    this.#reply.clearBody(abi.ATTR_OUT_SIZE);
    writeAttributes(this.#reply, abi.ATTR_OUT_ATTR, attributes);
    this.#send(call, abi.ATTR_OUT_SIZE);
  }

  #sendU64(call: Call, value: number): void {
    this.#reply.bodyU64(0, value);
    this.#send(call, 8);
  }

  #ok(call: Call): void {
    this.#send(call, 0);
  }

  #refuse(call: Call, errno: number): void {
    this.#send(call, 0, -errno);
  }

  /** @returns what write(2) answered: −ENOENT where the kernel no longer waits for the reply */
  #send(call: Call, bodyLength: number, error = 0): number {
    const { request, thread } = call;
    const reply = this.#reply;
    reply.header(request.uniqueLow, request.uniqueHigh, error, bodyLength);
    if (crashPoint !== null) crashPoint('reply', request.opcode);
    const sent = write(this.#context.deviceFds[thread] as number, this.#replyAddress, reply.length);
    if (crashPoint !== null) crashPoint('replied', request.opcode);
    this.#count(call, bodyLength, error);
    this.#endWork(call);
    return sent;
  }

  #count({ request, begunMs }: Call, bodyLength: number, error: number): void {
    const kind = kindOf(request);
    const file = kind === NOT_COUNTED ? undefined : this.#context.tree.byId(request.nodeId)?.file;
    if (file === undefined) return;
    const bytes = kind === READ ? bodyLength : rangeOf(request, file.disk.size);
    countRequest(this.#context.counters.of(file.ledgerIndex), kind, now() - begunMs, error < 0 ? error : bytes);
  }
}
