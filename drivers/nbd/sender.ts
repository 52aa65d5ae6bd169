/**
 * Sends requests, those of one turn of the event loop with one system call, and notes how much of each the kernel has.
 *
 *      queued ─► handing ─► sent: write(2) has taken all of it
 *                     └───► torn: it took a part. The rest but for its last byte is written when there is room, then
 *                           the last byte: until then the server cannot have it as a whole
 *
 * A server without CAN_MULTI_CONN must be flushed on the old connection after a takeover, and that is not possible within a
 * request. So over a unix socket it gets only short requests, in pieces that the kernel takes as a whole or not at all.
 *
 * If this process dies, only requests that were `handing` at that moment are uncertain. So it writes to the socket itself:
 * Node tells only when all of a write was taken. An encrypted stream is Node's, and its requests are `handing` until then.
 */
import { addressOf, E, write } from '../../system/libc.js';
import { allocateResident, type Resident } from '../../system/resident.js';
import type { Operation } from './operation.js';
import { REQUEST_BYTES, writeRequest } from './protocol.js';
import { type KeptState, SLOT, type SlotState } from './takeover/kept-state.js';
import type { Wire } from './wire.js';

/** small requests are copied here, one behind the other */
const STAGE_BYTES = 128 << 10;
/** longer data is sent from where it is */
const MOST_STAGED_BYTES = 32 << 10;
const RETRY_MS = 1;
/** the longest data of a request that is sent as a whole */
export const MOST_WHOLE_DATA = 32 << 10;
/** a unix socket takes so much as a whole or not at all: Linux puts 32 KiB and most of a page into one skb (af_unix.c) */
const WHOLE_BYTES = MOST_WHOLE_DATA + 1024;

/** one for all connections: it is used only during a call */
let stage: Resident | null = null;

export interface SenderWish {
  /** the random half of the cookies */
  readonly high: number;
  readonly isPlain: boolean;
  /** requests are sent as a whole or not at all, if they are short enough */
  readonly isWhole: boolean;
}

export class Sender {
  readonly #wire: Wire;
  readonly #state: KeptState;
  readonly #high: number;
  readonly #isPlain: boolean;
  readonly #isWhole: boolean;
  #queue: Operation[] = [];
  #isScheduled = false;
  /** the kernel has no room, or Node writes */
  #isFull = false;
  #isOver = false;

  constructor(wire: Wire, state: KeptState, { high, isPlain, isWhole }: SenderWish) {
    this.#wire = wire;
    this.#state = state;
    this.#high = high;
    this.#isPlain = isPlain;
    this.#isWhole = isWhole;
  }

  push(operation: Operation): void {
    this.#queue.push(operation);
    if (this.#isScheduled || this.#isFull) return;
    this.#isScheduled = true;
    process.nextTick(() => {
      this.#isScheduled = false;
      this.#flush();
    });
  }

  /** Sends nothing any more. */
  end(): void {
    this.#isOver = true;
    this.#queue = [];
  }

  #flush(): void {
    if (this.#isPlain) while (this.#queue.length > 0 && !this.#isFull && !this.#isOver) this.#sendSome();
    else this.#sendByNode();
  }

  /** Hands the first requests of the queue to the kernel. */
  #sendSome(): void {
    const [first] = this.#queue;
    if (first === undefined) return;
    const { fd } = this.#wire;
    if (fd === null) return this.end();
    const dataBytes = first.data?.length ?? 0;
    if (this.#isWhole && dataBytes <= MOST_WHOLE_DATA) return this.#sendWhole(fd);
    const staged =
      dataBytes <= MOST_STAGED_BYTES ? this.#stage(MOST_STAGED_BYTES, STAGE_BYTES) : this.#stageHeader(first);
    const [address, length] = staged.data === null ? [staged.address, staged.length] : [staged.address, REQUEST_BYTES];
    this.#state.isTorn = true;
    let taken = write(fd, address, length);
    if (staged.data !== null && taken === length) {
      const more = write(fd, addressOf(staged.data), staged.data.length);
      taken += Math.max(0, more);
      if (more < 0 && more !== -E.EAGAIN) return this.#failed(staged.count);
    }
    if (taken < 0 && taken !== -E.EAGAIN) return this.#failed(staged.count);
    this.#note(Math.max(0, taken), staged.count);
  }

  /** Hands the first requests of the queue to a unix socket, which takes all of them or nothing. */
  #sendWhole(fd: number): void {
    const { address, length, count } = this.#stage(MOST_WHOLE_DATA, WHOLE_BYTES);
    const taken = write(fd, address, length);
    if (taken === length) {
      for (const operation of this.#queue.splice(0, count)) this.#mark(operation, SLOT.sent);
    } else if (taken === -E.EAGAIN) {
      for (const operation of this.#queue.slice(0, count)) this.#mark(operation, SLOT.queued);
      this.#isFull = true;
      setTimeout(() => {
        this.#isFull = false;
        this.#flush();
      }, RETRY_MS);
    } else if (taken < 0) this.#failed(count);
    else {
      // the system has smaller buffers than usual
      this.#state.isTorn = true;
      this.#note(taken, count);
    }
  }

  /** Copies requests to the stage, with at most so many bytes of data each and in all. */
  #stage(mostData: number, mostBytes: number): Staged {
    stage ??= allocateResident(STAGE_BYTES);
    const { bytes, address } = stage;
    let [length, count] = [0, 0];
    for (const operation of this.#queue) {
      const dataBytes = operation.data?.length ?? 0;
      if (dataBytes > mostData || length + REQUEST_BYTES + dataBytes > mostBytes) break;
      this.#writeHeader(bytes, length, operation);
      length += REQUEST_BYTES;
      if (operation.data !== null) bytes.set(operation.data, length);
      length += dataBytes;
      count += 1;
      this.#mark(operation, SLOT.handing);
    }
    return { address, length, count, data: null };
  }

  #stageHeader(operation: Operation): Staged {
    stage ??= allocateResident(STAGE_BYTES);
    this.#writeHeader(stage.bytes, 0, operation);
    this.#mark(operation, SLOT.handing);
    return { address: stage.address, length: 0, count: 1, data: operation.data };
  }

  /** @param taken how many bytes of the first `count` requests the kernel has */
  #note(taken: number, count: number): void {
    let rest = taken;
    for (let i = 0; i < count; i++) {
      const operation = this.#queue[0] as Operation;
      const whole = REQUEST_BYTES + (operation.data?.length ?? 0);
      if (rest < whole) {
        for (let other = 1; other < count - i; other++) this.#mark(this.#queue[other] as Operation, SLOT.queued);
        this.#mark(operation, SLOT.torn);
        this.#queue.shift();
        return this.#finishByNode(operation, rest);
      }
      this.#queue.shift();
      this.#mark(operation, SLOT.sent);
      rest -= whole;
    }
    this.#state.isTorn = false;
  }

  /** Node writes the rest of a request but for its last byte, when there is room. */
  #finishByNode(operation: Operation, taken: number): void {
    this.#isFull = true;
    const header = Buffer.alloc(REQUEST_BYTES);
    this.#writeHeader(header, 0, operation);
    const data = operation.data ?? new Uint8Array(0);
    const whole = REQUEST_BYTES + data.length;
    const chunks = [
      header.subarray(Math.min(taken, REQUEST_BYTES), Math.min(REQUEST_BYTES, whole - 1)),
      data.subarray(Math.max(0, taken - REQUEST_BYTES), Math.max(0, data.length - 1)),
    ].filter(({ length }) => length > 0);
    const last = Buffer.from(data.length > 0 ? data.subarray(-1) : header.subarray(-1));
    if (chunks.length === 0) return this.#sendLast(operation, last);
    this.#wire.send(chunks, () => this.#sendLast(operation, last));
  }

  #sendLast(operation: Operation, last: Buffer): void {
    const { fd } = this.#wire;
    if (this.#isOver || fd === null) return;
    this.#mark(operation, SLOT.handing);
    const taken = write(fd, addressOf(last), 1);
    if (taken === -E.EAGAIN) {
      this.#mark(operation, SLOT.torn);
      setTimeout(() => this.#sendLast(operation, last), RETRY_MS);
      return;
    }
    if (taken < 0) return this.#failed(0);
    this.#mark(operation, SLOT.sent);
    this.#state.isTorn = false;
    this.#isFull = false;
    this.#flush();
  }

  /** The connection is broken: the wire tells it, and all are sent again. */
  #failed(count: number): void {
    this.#queue.splice(0, count);
    this.#wire.close(new Error('the NBD server closed the connection'));
  }

  #sendByNode(): void {
    const batch = this.#queue;
    if (batch.length === 0 || this.#isOver) return;
    this.#queue = [];
    this.#isFull = true;
    const chunks: Uint8Array[] = [];
    for (const operation of batch) {
      const header = Buffer.alloc(REQUEST_BYTES);
      this.#writeHeader(header, 0, operation);
      this.#mark(operation, SLOT.handing);
      chunks.push(header, ...(operation.data === null ? [] : [operation.data]));
    }
    this.#wire.send(chunks, () => {
      for (const operation of batch) this.#mark(operation, SLOT.sent);
      this.#isFull = false;
      this.#flush();
    });
  }

  #writeHeader(to: Buffer, at: number, operation: Operation): void {
    const { flags, command, cookie: low, offset, length } = operation;
    writeRequest(to, at, { flags, command, cookie: { high: this.#high, low }, offset, length });
  }

  /** An operation that is done has no slot any more. */
  #mark({ slot }: Operation, state: SlotState): void {
    if (slot !== null) this.#state.set(slot, state);
  }
}

interface Staged {
  readonly address: number;
  /** of what is on the stage */
  readonly length: number;
  /** of requests */
  readonly count: number;
  /** data that follows the header on the stage; null: all is on the stage */
  readonly data: Uint8Array | null;
}
