/**
 * The replies of the main thread. There is one resident buffer: each reply but those of reads is written into it and sent at
 * once. The bytes of a read are sent from where the driver put them (reply-rooms.ts). A reply goes to the descriptor that
 * the request came from.
 */
import { E, write } from '../../../system/libc.js';
import { allocateResident } from '../../../system/resident.js';
import { type CounterPages, countRequest, NOT_COUNTED, now, READ, WRITE } from '../../ledger/counters.js';
import type { Attributes } from '../../transport/transport.js';
import type { Tree } from '../../transport/tree.js';
import * as abi from '../protocol/abi.js';
import { Reply, writeAttributes } from '../protocol/message.js';
import { crashPoint } from '../thread/crash-point.js';
import type { Call, CallsUnderWay } from './calls-under-way.js';
import type { ReplyRoom } from './reply-rooms.js';
import { kindOf, rangeOf } from './serve-disk.js';

export interface ReplyContext {
  readonly deviceFds: readonly number[];
  readonly tree: Tree;
  /** the counters of the main thread */
  readonly counters: CounterPages;
}

export class Replies {
  readonly #context: ReplyContext;
  readonly #calls: CallsUnderWay;
  readonly #reply: Reply;
  readonly #address: number;

  constructor(context: ReplyContext, calls: CallsUnderWay) {
    this.#context = context;
    this.#calls = calls;
    const resident = allocateResident(abi.OUT_HEADER_SIZE + abi.MAX_WRITE);
    this.#reply = new Reply(resident.bytes);
    this.#address = resident.address;
  }

  /** The buffer with a body of zeros; fill and send it before any other reply. */
  blank(bodyLength: number): Reply {
    this.#reply.clearBody(bodyLength);
    return this.#reply;
  }

  /** The buffer with the bytes of the last reply, for a body that overwrites all of them. */
  get buffer(): Reply {
    return this.#reply;
  }

  ok(call: Call): void {
    this.send(call, 0);
  }

  refuse(call: Call, errno: number): void {
    this.send(call, 0, -errno);
  }

  sendU64(call: Call, value: number): void {
    this.#reply.bodyU64(0, value);
    this.send(call, 8);
  }

  sendBytes(call: Call, bytes: Uint8Array): void {
    this.#reply.bytes.set(bytes, abi.OUT_HEADER_SIZE);
    this.send(call, bytes.byteLength);
  }

  /** Answers a read with the first `length` bytes of the room. */
  sendRoom(call: Call, room: ReplyRoom, length: number): void {
    room.touch(length);
    this.#write(call, room, { length, error: 0 });
  }

  sendAttributes(call: Call, attributes: Attributes): void {
    writeAttributes(this.blank(abi.ATTR_OUT_SIZE), abi.ATTR_OUT_ATTR, attributes);
    this.send(call, abi.ATTR_OUT_SIZE);
  }

  /**
   * Answers a lookup.
   * @param generation the same node with another generation is another file to the kernel
   * @returns false if the client has gone: the kernel then has no reference that it would forget later
   */
  sendEntry(call: Call, attributes: Attributes, generation = 0): boolean {
    const reply = this.blank(abi.ENTRY_OUT_SIZE);
    reply.bodyU64(0, attributes.nodeId);
    reply.bodyU64(2, generation);
    writeAttributes(reply, abi.ENTRY_ATTR, attributes);
    return this.send(call, abi.ENTRY_OUT_SIZE) !== -E.ENOENT;
  }

  /** @returns the result of write(2): −ENOENT if the kernel no longer waits for the reply */
  send(call: Call, bodyLength: number, error = 0): number {
    return this.#write(call, { reply: this.#reply, address: this.#address }, { length: bodyLength, error });
  }

  /** @param from where the reply is; its header is written here */
  #write(
    call: Call,
    { reply, address }: Pick<ReplyRoom, 'reply' | 'address'>,
    { length, error }: { readonly length: number; readonly error: number },
  ): number {
    const { request, thread } = call;
    reply.header(request.uniqueLow, request.uniqueHigh, error, length);
    if (crashPoint !== null) crashPoint('reply', request.opcode);
    const sent = write(this.#context.deviceFds[thread] as number, address, reply.length);
    if (crashPoint !== null) crashPoint('replied', request.opcode);
    this.#count(call, length, error);
    this.#calls.end(call);
    return sent;
  }

  #count({ request, begunMs }: Call, bodyLength: number, error: number): void {
    const kind = kindOf(request);
    const file = kind === NOT_COUNTED ? undefined : this.#context.tree.byId(request.nodeId)?.file;
    if (file === undefined) return;
    const bytes = kind === READ ? bodyLength : rangeOf(request, file.disk.size);
    const tookMs = now() - begunMs;
    if (kind === READ || kind === WRITE) this.#calls.noteAnswer(tookMs);
    countRequest(this.#context.counters.of(file.ledgerIndex), kind, tookMs, error < 0 ? error : bytes);
  }
}
