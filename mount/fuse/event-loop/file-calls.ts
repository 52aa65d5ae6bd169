/**
 * Calls on a file of a bus: OPEN, RELEASE, IOCTL, and the I/O of disks that are not windows. serve-disk.ts moves the
 * bytes; this file knows the handles, notes writes and failures in the ledger, and makes I/O of a paused file wait.
 */
import { errnoOf } from '../../../drivers/errors.js';
import { E } from '../../../system/libc.js';
import type { Ledger } from '../../ledger/ledger.js';
import { flushFile, mayHaveTakenError, refusalOfOpen, writesDurably } from '../../transport/file-rules.js';
import { Handles } from '../../transport/handles.js';
import type { BusFile } from '../../transport/transport.js';
import type { Tree } from '../../transport/tree.js';
import * as abi from '../protocol/abi.js';
import type { Request } from '../protocol/message.js';
import { isFileId } from './attributes.js';
import { blockIoctl } from './block-ioctl.js';
import type { Call, CallsUnderWay } from './calls-under-way.js';
import type { Replies } from './replies.js';
import { ReplyRooms } from './reply-rooms.js';
import { allocateDisk, readDisk, readLength, seekDisk, writeDisk } from './serve-disk.js';

export interface FileContext {
  readonly tree: Tree;
  readonly ledger: Ledger;
  /** runs a write to a file that threads may be writing at the same time */
  writeBeside<Result>(nodeId: number, write: () => Promise<Result>): Promise<Result>;
}

export interface FileCallParts {
  readonly calls: CallsUnderWay;
  readonly replies: Replies;
}

export class FileCalls {
  readonly #context: FileContext;
  readonly #calls: CallsUnderWay;
  readonly #replies: Replies;
  readonly #handles: Handles;
  readonly #rooms = new ReplyRooms();

  constructor(context: FileContext, { calls, replies }: FileCallParts) {
    this.#context = context;
    this.#calls = calls;
    this.#replies = replies;
    this.#handles = new Handles(context.ledger);
  }

  open(call: Call): void {
    const { request } = call;
    const node = this.#context.tree.byId(request.nodeId);
    if (node === undefined || node.leaving) return this.#replies.refuse(call, E.ENOENT);
    const { backingId, mapId } = node;
    // passthrough I/O cannot be paused, so the file must not be opened while it is paused
    if (backingId !== null && this.#calls.putAside(call)) return;
    const flags = request.bodyU32(abi.OPEN_FLAGS);
    const refusal = refusalOfOpen(flags, node.file.disk.readOnly);
    if (refusal !== 0) return this.#replies.refuse(call, refusal);
    const fh = request.uniqueId;
    const handle = { fh, nodeId: request.nodeId, pid: request.pid, flags };
    if (!this.#handles.open(handle, node.file.flushIndex)) return this.#replies.refuse(call, E.ENFILE);
    const reply = this.#replies.blank(abi.OPEN_OUT_SIZE);
    reply.bodyU64(0, fh);
    // with both flags, the kernel sends reads here and maps the image itself
    const served = backingId === null ? abi.FOPEN_DIRECT_IO | abi.FOPEN_PARALLEL_DIRECT_WRITES : 0;
    const kernelId = backingId ?? mapId;
    reply.bodyU32(2, served | abi.FOPEN_NOFLUSH | (kernelId === null ? 0 : abi.FOPEN_PASSTHROUGH));
    if (kernelId !== null) reply.bodyU32(3, kernelId);
    // if the client was killed meanwhile: there will be no RELEASE
    if (this.#replies.send(call, abi.OPEN_OUT_SIZE) === -E.ENOENT) this.#handles.close(fh);
  }

  close(call: Call): void {
    this.#handles.close(call.request.bodyU64(abi.RELEASE_FH));
    this.#replies.ok(call);
  }

  /** Answers some ioctls of block devices; every other ioctl is ENOTTY, as for a regular file. */
  ioctl(call: Call): void {
    const { request } = call;
    const disk = isFileId(request.nodeId) ? this.#context.tree.existing(request.nodeId).file.disk : null;
    const answer = disk === null ? null : blockIoctl(request.bodyU32(abi.IOCTL_CMD), disk);
    if (answer === null || request.bodyU32(abi.IOCTL_OUT_SIZE) < answer.length) {
      return this.#replies.refuse(call, E.ENOTTY);
    }
    const reply = this.#replies.blank(abi.IOCTL_OUT_HEADER_SIZE);
    reply.bytes.set(answer, abi.OUT_HEADER_SIZE + abi.IOCTL_OUT_HEADER_SIZE);
    this.#replies.send(call, abi.IOCTL_OUT_HEADER_SIZE + answer.length);
  }

  /** READ, WRITE, FSYNC, FALLOCATE, LSEEK: now, or after the pause of the file. */
  io(call: Call): void {
    if (this.#calls.putAside(call)) return;
    const work = this.#doIo(call).catch((error: unknown) => {
      const errno = errnoOf(error);
      // the driver may have given up while some of its calls still use the bytes
      call.pool?.lose(call.request);
      call.pool = null;
      this.#noteFailure(call.request, errno);
      this.#replies.refuse(call, errno);
    });
    this.#calls.track(call, work);
  }

  #noteFailure(request: Request, errno: number): void {
    const { ledger, tree } = this.#context;
    const file = tree.byId(request.nodeId)?.file;
    const isWrite = request.opcode === abi.WRITE;
    if (file === undefined || !(isWrite || request.opcode === abi.FALLOCATE)) return;
    ledger.noteFailedWrite(file.ledgerIndex);
    const isDurable = isWrite && writesDurably(request.bodyU32(abi.RW_FLAGS));
    if (isDurable && mayHaveTakenError(errno, request.bodyU64(abi.RW_OFFSET), file.disk.size))
      ledger.noteFlushError(file.flushIndex, errno);
  }

  async #doIo(call: Call): Promise<void> {
    const { request } = call;
    const { tree, ledger, writeBeside } = this.#context;
    const { file } = tree.existing(request.nodeId);
    switch (request.opcode) {
      case abi.READ:
        return await this.#read(call, file);
      case abi.WRITE: {
        const n = await writeBeside(file.nodeId, () => writeDisk(file.disk, request));
        ledger.noteWrite(file.ledgerIndex, Date.now());
        return this.#replies.sendU64(call, n);
      }
      case abi.FALLOCATE:
        await writeBeside(file.nodeId, () => allocateDisk(file.disk, request));
        ledger.noteWrite(file.ledgerIndex, Date.now());
        return this.#replies.ok(call);
      case abi.LSEEK:
        return this.#replies.sendU64(call, await seekDisk(file.disk, request));
      default:
        return this.#fsync(call);
    }
  }

  async #read(call: Call, { disk }: BusFile): Promise<void> {
    const room = this.#rooms.take(readLength(call.request));
    room.useFor(disk);
    // after an error, calls of the driver may still fill the room: it is not used again
    const length = await readDisk(disk, call.request, room.data);
    this.#replies.sendRoom(call, room, length);
    this.#rooms.give(room);
  }

  async #fsync(call: Call): Promise<void> {
    const { tree, ledger } = this.#context;
    const { file } = tree.existing(call.request.nodeId);
    await flushFile(file, ledger);
    const errno = this.#handles.takeFlushError(call.request.bodyU64(abi.FSYNC_FH), file.flushIndex);
    if (errno === 0) this.#replies.ok(call);
    else this.#replies.refuse(call, errno);
  }
}
