/**
 * All requests that threads do not serve: names, attributes, handles, the directory, and I/O of disks that are not
 * windows. Runs on the main thread's event loop. This file chooses who answers which opcode:
 *
 *      dispatch ──► directory.ts     names
 *               ├─► attributes.ts    what stat(2) shows
 *               └─► file-calls.ts    handles and I/O ──► serve-disk.ts
 *
 * All of them answer through replies.ts; calls-under-way.ts knows the requests that are not answered yet.
 *
 * The kernel remembers ENOSYS for the whole connection, so it is the answer only to opcodes that are never served.
 * Opcodes that would change the directory get EPERM.
 */
import { errnoOf } from '../../../drivers/errors.js';
import { E } from '../../../system/libc.js';
import { DiskNames } from '../../labels/disk-names.js';
import type { NamesOfFile } from '../../transport/transport.js';
import * as abi from '../protocol/abi.js';
import { isOneWay, isWellFormed, Request } from '../protocol/message.js';
import { crashPoint } from '../thread/crash-point.js';
import type { RequestMemory } from '../thread/request-memory.js';
import type { RequestPlace } from '../thread/thread.js';
import { AttributeCalls, type AttributeContext } from './attributes.js';
import { type Call, CallsUnderWay } from './calls-under-way.js';
import { Directory, type DirectoryContext } from './directory.js';
import { FileCalls, type FileContext } from './file-calls.js';
import { Replies, type ReplyContext } from './replies.js';
import { RequestPool, SharedRequests } from './request-pool.js';

export interface DispatchContext extends ReplyContext, AttributeContext, DirectoryContext, FileContext {
  /** where threads hand on large requests */
  readonly requestMemory: RequestMemory;
}

export class Dispatcher {
  readonly #calls: CallsUnderWay;
  readonly #replies: Replies;
  readonly #attributes: AttributeCalls;
  readonly #directory: Directory;
  readonly #files: FileCalls;
  readonly #names: DiskNames;
  readonly #pool = new RequestPool();
  readonly #shared: SharedRequests;

  constructor(context: DispatchContext) {
    this.#shared = new SharedRequests(context.requestMemory);
    this.#calls = new CallsUnderWay(context.ledger, (call) => this.#answer(call));
    this.#replies = new Replies(context, this.#calls);
    this.#attributes = new AttributeCalls(context, this.#replies);
    this.#names = new DiskNames({ tree: context.tree, ledger: context.ledger, gate: this.#calls.gate });
    const parts = { attributes: this.#attributes, replies: this.#replies, names: this.#names };
    this.#directory = new Directory(context, parts);
    this.#files = new FileCalls(context, { calls: this.#calls, replies: this.#replies });
  }

  /** Answers one request, now or later. Never throws. The receiver owns the bytes, or the place. */
  dispatch(device: number, bytes: Uint8Array | RequestPlace): void {
    if ('place' in bytes) return this.#dispatchPlace(device, bytes);
    const request = new Request(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength));
    this.#begin(this.#calls.begin(device, request), bytes.byteLength);
  }

  #dispatchPlace(device: number, { place, length }: RequestPlace): void {
    this.#begin(this.#calls.begin(device, this.#shared.at(place), this.#shared), length);
  }

  /** As dispatch, for the first bytes of a buffer that the caller uses again. */
  dispatchCopy(device: number, bytes: Uint8Array, length: number): void {
    const request = this.#pool.take(length);
    request.bytes.set(bytes.subarray(0, length));
    this.#begin(this.#calls.begin(device, request, this.#pool), length);
  }

  #begin(call: Call, length: number): void {
    const { request } = call;
    if (isWellFormed(request, length)) this.#answer(call);
    else if (length >= abi.IN_HEADER_SIZE && !isOneWay(request.opcode)) this.#replies.refuse(call, E.EINVAL);
    else this.#calls.end(call);
  }

  /** How many requests are not answered. */
  get underWay(): number {
    return this.#calls.count;
  }

  /** How long reads and writes take now, on average. */
  get answerMs(): number {
    return this.#calls.answerMs;
  }

  /** The names of all files, as far as they can be read within a second. */
  names(): Promise<NamesOfFile[]> {
    return this.#names.all();
  }

  /** For how long the oldest read for names has been under way; 0: there is none. */
  oldestNameReadMs(): number {
    return this.#names.oldestReadMs();
  }

  /** Pauses the file: new I/O waits. Resolves when no I/O is under way any more. */
  pause(nodeId: number): Promise<void> {
    return this.#calls.pause(nodeId);
  }

  /** Resumes the file: answers all requests that waited, in the order in which they came. */
  resume(nodeId: number): void {
    this.#calls.resume(nodeId);
  }

  #answer(call: Call): void {
    const isTwoWay = !isOneWay(call.request.opcode);
    if (crashPoint !== null) crashPoint('io', call.request.opcode);
    try {
      this.#route(call);
    } catch (error) {
      if (isTwoWay) this.#replies.refuse(call, errnoOf(error));
    }
    if (!isTwoWay) this.#calls.end(call);
  }

  #route(call: Call): void {
    switch (call.request.opcode) {
      case abi.LOOKUP:
        return this.#directory.lookup(call);
      case abi.FORGET:
        return this.#directory.forget(call);
      case abi.BATCH_FORGET:
        return this.#directory.batchForget(call);
      case abi.READLINK:
        return this.#directory.readlink(call);
      case abi.OPENDIR:
        return this.#directory.opendir(call);
      case abi.READDIR:
        return this.#directory.readdir(call);
      case abi.STATFS:
        return this.#directory.statfs(call);
      case abi.GETATTR:
        return this.#attributes.getattr(call);
      case abi.SETATTR:
        return this.#attributes.setattr(call);
      case abi.OPEN:
        return this.#files.open(call);
      case abi.RELEASE:
        return this.#files.close(call);
      case abi.IOCTL:
        return this.#files.ioctl(call);
      case abi.READ:
      case abi.WRITE:
      case abi.FSYNC:
      case abi.FALLOCATE:
      case abi.LSEEK:
        return this.#files.io(call);
      case abi.FLUSH:
      case abi.RELEASEDIR:
      case abi.FSYNCDIR:
      case abi.SYNCFS:
      case abi.DESTROY:
        return this.#replies.ok(call);
      default:
        return this.#replies.refuse(call, refusalOf(call.request.opcode));
    }
  }
}

/** The errno for an opcode that is not served. */
function refusalOf(opcode: number): number {
  switch (opcode) {
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
      return E.EPERM;
    default:
      // xattrs, ACCESS, INTERRUPT, POLL, STATX, COPY_FILE_RANGE, …: the kernel never sends them again
      return E.ENOSYS;
  }
}
