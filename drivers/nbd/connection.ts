/**
 * A connection to an export: sends operations and matches the replies. Those of one turn of the event loop are sent with
 * one system call.
 */
import { randomBytes } from 'node:crypto';
import { addressOf, E, read, SystemCallError } from '../../system/libc.js';
import { FusetapError } from '../errors.js';
import type { Drain } from './drain.js';
import { ProtocolFault, replyError, SHUTTING_DOWN } from './faults.js';
import { type ByteStream, type ExportFacts, negotiate } from './handshake.js';
import type { Operation } from './operation.js';
import { COMMAND, EXPORT_FLAG, REQUEST_BYTES, writeRequest } from './protocol.js';
import { ReplyReader } from './reply-reader.js';
import { Sender } from './sender.js';
import { type KeptState, MOST_IN_FLIGHT } from './takeover/kept-state.js';
import { encryptedSocket } from './tls.js';
import type { NbdAddress } from './uri.js';
import { FIRST_BYTES, Wire } from './wire.js';

/** how much a server may send in the handshake before it is read */
const MOST_UNREAD_BYTES = 512 << 10;
/** so much of a read that is still to come is received where it was asked for */
const DIRECT_BYTES = 16 << 10;
/** how often one turn of the event loop receives, beside Node */
const MOST_RECEIVES = 16;

export interface ConnectionEvents {
  /** an operation is done, or another one may be sent */
  hasRoom(): void;
  /** once; the operations that were in flight, in the order in which they were sent */
  lost(reason: Error, inFlight: Operation[]): void;
}

export interface ConnectionWish {
  readonly events: ConnectionEvents;
  /** gives up the attempt */
  readonly signal: AbortSignal;
  readonly drain: Drain;
}

export class Connection {
  readonly facts: ExportFacts;
  readonly #wire: Wire;
  readonly #state: KeptState;
  readonly #events: ConnectionEvents;
  readonly #high = randomHigh();
  #count = 0;
  /** by the counted half of their cookies */
  readonly #inFlight = new Map<number, Operation>();
  readonly #sender: Sender;
  #isOver = false;
  #answered = 0;
  #receivedBytes = 0;
  /** in this turn of the event loop, beside those of Node */
  #receives = 0;

  /** @throws FusetapError if the server refuses; ProtocolFault; the system's error; the reason of the signal */
  static async open(
    address: NbdAddress,
    state: KeptState,
    { events, signal, drain }: ConnectionWish,
  ): Promise<Connection> {
    const wire = await Wire.dial(address, address.tls === null ? state.buffer : null, { signal, drain });
    const stream = new Handshaking(wire, state, (socket) => encryptedSocket(socket, address, signal));
    const abort = (): void => stream.fail(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    try {
      const facts = await negotiate(stream, { exportName: address.exportName, withTls: address.tls !== null });
      if (stream.hasRest) throw new ProtocolFault('the NBD server sends more than it was asked for');
      return new Connection({
        wire,
        facts,
        state,
        events,
        isPlain: address.tls === null,
        isWhole: sendsWhole(address, facts),
      });
    } catch (error) {
      wire.close();
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  private constructor(parts: {
    readonly wire: Wire;
    readonly facts: ExportFacts;
    readonly state: KeptState;
    readonly events: ConnectionEvents;
    readonly isPlain: boolean;
    readonly isWhole: boolean;
  }) {
    const { wire, facts, state, events, isPlain, isWhole } = parts;
    this.facts = facts;
    this.#wire = wire;
    this.#state = state;
    this.#events = events;
    this.#sender = new Sender(wire, state, { high: this.#high, isPlain, isWhole });
    const { isStructured, contextId } = facts;
    const reader = new ReplyReader({
      isStructured,
      contextId,
      find: (high, low) => this.#find(high, low),
      ends: (operation) => this.#freeSlot(operation),
      done: (operation) => this.#done(operation),
    });
    wire.events = {
      data: (bytes) => {
        this.#received(reader, bytes);
        if (isPlain) this.#receiveMore(reader, bytes);
      },
      ended: (error) => this.#ended(error ?? new Error('the NBD server closed the connection')),
    };
  }

  /** of the socket; null if it is closed */
  get fd(): number | null {
    return this.#wire.fd;
  }

  get hasRoom(): boolean {
    return !this.#isOver && this.#inFlight.size < MOST_IN_FLIGHT;
  }

  /** how many operations the server has answered */
  get answered(): number {
    return this.#answered;
  }

  /** grows while the server answers */
  get receivedBytes(): number {
    return this.#receivedBytes;
  }

  get isIdle(): boolean {
    return this.#inFlight.size === 0;
  }

  /** Whether an operation in flight was asked for before that time. */
  hasOlder(thanMs: number): boolean {
    for (const { sinceMs } of this.#inFlight.values()) if (sinceMs < thanMs) return true;
    return false;
  }

  #unusedLow(): number {
    for (;;) {
      this.#count = (this.#count + 1) & LOW_MASK;
      const low = countedLow(this.#count);
      // an operation may wait for so long that the numbers begin anew
      if (!this.#inFlight.has(low)) return low;
    }
  }

  /** Sends an operation. There must be room. */
  submit(operation: Operation): void {
    const low = this.#unusedLow();
    operation.cookie = low;
    operation.acknowledged = this.#state.acknowledged;
    this.#inFlight.set(low, operation);
    const { offset, length, asked } = operation;
    if (operation.changes) operation.slot = this.#state.take({ high: this.#high, low, offset, length, asked });
    this.#sender.push(operation);
  }

  #received(reader: ReplyReader, bytes: Uint8Array): void {
    this.#receivedBytes += bytes.length;
    this.#parse(() => reader.feed(bytes));
    noteLookedAt(this.#state, bytes);
  }

  /** Receives what else has come, but not for so long that other work has to wait. */
  #receiveMore(reader: ReplyReader, first: Uint8Array): void {
    let mayBeMore = first.length === FIRST_BYTES;
    // behind a long answer comes another one, most often
    let isLong = false;
    while (!this.#isOver) {
      const isDirect = reader.room.length >= DIRECT_BYTES;
      if ((!isDirect && !mayBeMore) || !this.#mayReceive()) return;
      const most = isLong ? FIRST_BYTES : this.#state.buffer.length;
      const taken = isDirect ? this.#receiveDirectly(reader) : this.#receiveReplies(reader, most);
      if (taken <= 0) return;
      mayBeMore = isDirect || taken === most;
      isLong = isDirect;
    }
  }

  /**
   * The rest of a long read is received where it was asked for. A next server needs none of it: it looks only for headers,
   * and the read is repeated.
   */
  #receiveDirectly(reader: ReplyReader): number {
    const { room } = reader;
    const taken = this.#read(room);
    if (taken <= 0) return taken;
    this.#receivedBytes += taken;
    this.#parse(() => reader.received(taken));
    return taken;
  }

  #receiveReplies(reader: ReplyReader, mostBytes: number): number {
    const { buffer } = this.#state;
    const taken = this.#read(buffer.subarray(0, mostBytes));
    if (taken > 0) this.#received(reader, buffer.subarray(0, taken));
    return taken;
  }

  /** Node calls several times in one turn of the event loop. */
  #mayReceive(): boolean {
    if (this.#receives === 0) {
      setImmediate(() => {
        this.#receives = 0;
      });
    }
    if (this.#receives === MOST_RECEIVES) return false;
    this.#receives += 1;
    return true;
  }

  /** @returns 0 or less: nothing. The end is left to Node, which meets it too; an error is told only once */
  #read(to: Uint8Array): number {
    const { fd } = this.#wire;
    const taken = fd === null ? 0 : read(fd, addressOf(to), to.length);
    if (taken < 0 && taken !== -E.EAGAIN && taken !== -E.EINTR) this.#wire.close(new SystemCallError('read', -taken));
    return taken;
  }

  #parse(parse: () => void): void {
    try {
      parse();
    } catch (error) {
      // an error of ours must not leave a stream that nobody reads
      this.#wire.close(error as Error);
    }
  }

  #find(high: number, low: number): Operation {
    const operation = high === this.#high ? this.#inFlight.get(low) : undefined;
    if (operation === undefined) throw new ProtocolFault('the NBD server answers a request that nobody sent');
    return operation;
  }

  #done(operation: Operation): void {
    const { error } = operation;
    if (error?.number === SHUTTING_DOWN) throw new Error('the NBD server is shutting down');
    this.#inFlight.delete(operation.cookie);
    this.#answered += 1;
    // first the state that outlives this process, then the answer
    if (error === null && operation.changes && !operation.isDurable && this.#flushes) this.#state.noteWrite();
    if (error === null && operation.command === COMMAND.flush) this.#state.noteDurable(operation.acknowledged);
    this.#freeSlot(operation);
    if (error === null) operation.resolve();
    else operation.reject(replyError(error.number, error.text, (this.facts.flags & EXPORT_FLAG.readOnly) !== 0));
    this.#events.hasRoom();
  }

  /**
   * A next server does not wait for an answer to it any more. The text of an error may be long and come late. The header
   * before it has left the memory by then, and a next server would not find it.
   */
  #freeSlot(operation: Operation): void {
    if (operation.slot !== null) this.#state.free(operation.slot);
    operation.slot = null;
  }

  get #flushes(): boolean {
    return (this.facts.flags & EXPORT_FLAG.flush) !== 0;
  }

  #ended(reason: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const inFlight = [...this.#inFlight.values()];
    this.#inFlight.clear();
    this.#sender.end();
    this.#events.lost(reason, inFlight);
  }

  /** Ends it in order; nothing may be in flight. */
  close(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    const goodbye = Buffer.alloc(REQUEST_BYTES);
    const cookie = { high: this.#high, low: 0 };
    writeRequest(goodbye, 0, { flags: 0, command: COMMAND.disconnect, cookie, offset: 0, length: 0 });
    this.#wire.send([goodbye], () => {});
    this.#wire.finish();
  }

  /** Ends it at once. */
  break(reason: Error): void {
    this.#wire.close(reason);
  }
}

/** Whether requests are sent as a whole or not at all: see sender.ts. */
export function sendsWhole({ socket, tls }: NbdAddress, { flags }: { readonly flags: number }): boolean {
  return socket !== null && tls === null && (flags & EXPORT_FLAG.multiConn) === 0;
}

/** Bytes of a plain stream are in the memory that outlives this process. */
function noteLookedAt(state: KeptState, bytes: Uint8Array): void {
  if (bytes.buffer === state.buffer.buffer) state.lookedAt(bytes.length);
}

// no byte of a cookie is 0: if a reply is cut within it, the zeros behind show where (see KeptState)

function randomHigh(): number {
  return Buffer.from(randomBytes(4).map((byte) => byte || 1)).readUInt32BE(0);
}

const LOW_MASK = 2 ** 28 - 1;

/** Seven bits of a count in each byte. */
function countedLow(count: number): number {
  const bits = (count & 0x7f) | ((count & 0x3f80) << 1) | ((count & 0x1f_c000) << 2) | ((count & 0xfe0_0000) << 3);
  return (bits | 0x8080_8080) >>> 0;
}

/** The stream of a handshake: collects what comes until it is taken. */
class Handshaking implements ByteStream {
  readonly #wire: Wire;
  readonly #encrypt: Parameters<Wire['encrypt']>[0];
  #unread = Buffer.alloc(0);
  #wanted: { readonly length: number; resolve(bytes: Buffer): void; reject(error: Error): void } | null = null;
  #error: Error | null = null;

  constructor(wire: Wire, state: KeptState, encrypt: Parameters<Wire['encrypt']>[0]) {
    this.#wire = wire;
    this.#encrypt = encrypt;
    wire.events = {
      data: (bytes) => {
        if (this.#unread.length + bytes.length > MOST_UNREAD_BYTES)
          return this.fail(new ProtocolFault('the NBD server sends too much'));
        this.#unread = Buffer.concat([this.#unread, bytes]);
        noteLookedAt(state, bytes);
        this.#give();
      },
      ended: (error) => this.fail(error ?? new Error('the NBD server closed the connection')),
    };
  }

  get hasRest(): boolean {
    return this.#unread.length > 0;
  }

  take(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { length, resolve, reject };
      this.#give();
    });
  }

  send(bytes: Buffer): void {
    this.#wire.send([bytes], () => {});
  }

  async encrypt(): Promise<void> {
    // what came before would be believed although it was not encrypted
    if (this.hasRest) throw new FusetapError('DENIED', 'the NBD server sends plain bytes where encryption begins');
    await this.#wire.encrypt(this.#encrypt);
  }

  fail(error: Error): void {
    this.#error ??= error;
    this.#give();
  }

  #give(): void {
    const wanted = this.#wanted;
    if (wanted === null) return;
    if (this.#unread.length >= wanted.length) {
      this.#wanted = null;
      // a copy: a few bytes must not keep all that has come with them
      const taken = Buffer.from(this.#unread.subarray(0, wanted.length));
      this.#unread = this.#unread.subarray(wanted.length);
      wanted.resolve(taken);
    } else if (this.#error !== null) {
      this.#wanted = null;
      wanted.reject(this.#error);
    }
  }
}
