/**
 * The memory that outlives a server of a remote disk: a memfd that the keeper has too.
 *
 *     0        ┌ the head: see kept-head.ts; isTorn; waitsSinceMs; endedSocket
 *     64       ├ slots, 48 bytes each: the requests in flight that change the disk
 *     4 KiB    ├ ranges in doubt: see doubts.ts
 *     40 KiB−32├ the last bytes that were received before those in the buffer
 *     40 KiB   ├ the buffer into which the socket is read
 *              └
 *
 * While a request that changes the disk is in flight, the buffer has zeros but for what was received and not looked at. So
 * the next server knows where that ends: a server may die between the two.
 *
 * The server writes a slot before it sends the request. It frees the slot when the last header of the reply was parsed,
 * before its client is answered. A payload may follow that header, and be longer than the last bytes that are kept. See
 * "Disks on a network" in docs/architecture.md.
 */
import { mapShared } from '../../../system/libc.js';
import { createKept, isKept, KEPT_WORD, type KeptLayout } from '../../kept-head.js';
import type { Range } from '../operation.js';
import { DOUBT_BYTES } from './doubts.js';

/** the most requests in flight on a connection: servers serve 16 of one connection at a time */
export const MOST_IN_FLIGHT = 64;
const SLOTS_START = 64;
const SLOT_BYTES = 48;
const DOUBTS_START = 4096;
const BUFFER_START = 40 << 10;
/** longer than every header */
export const TAIL_BYTES = 32;
export const MOST_DOUBTS = Math.floor((BUFFER_START - TAIL_BYTES - DOUBTS_START) / DOUBT_BYTES);
export const BUFFER_BYTES = 256 << 10;
const WHOLE_BYTES = BUFFER_START + BUFFER_BYTES;
const LAYOUT: KeptLayout = { name: 'fusetap-nbd', bytes: WHOLE_BYTES, version: 1 };

/** int32 words of a slot, and of its place */
const enum S {
  state = 0,
  high = 1,
  low = 2,
}
/** float64 words of a slot */
const enum SF {
  offset = 2,
  length = 3,
  askedOffset = 4,
  askedLength = 5,
}
/** int32 words behind the head */
const enum H {
  isTorn = 4,
}
/** the float64 word behind them */
const WAITS_SINCE = 4;
const ENDED_SOCKET = 5;

/**
 * `queued`: the kernel has nothing of it; `torn`: it lacks the end; `handing`: it may have all, a part or nothing; `sent`: it
 * has all
 */
export const SLOT = { free: 0, queued: 1, handing: 2, sent: 3, torn: 4 } as const;
export type SlotState = (typeof SLOT)[keyof typeof SLOT];

export interface Slot {
  readonly index: number;
  readonly state: SlotState;
  readonly high: number;
  readonly low: number;
  readonly offset: number;
  readonly length: number;
  /** see Operation.asked */
  readonly asked: Range;
}

export class KeptState {
  readonly fd: number;
  readonly #i32: Int32Array;
  readonly #f64: Float64Array;
  /** for the ranges in doubt */
  readonly doubts: Float64Array;
  /** where the socket is read to */
  readonly buffer: Uint8Array;
  /** the last bytes before the buffer, then the buffer */
  readonly received: Buffer;
  readonly #free: number[] = [];
  /** of the buffer, from its start: they have been looked at, and may not be zeros */
  #usedBytes = 0;

  private constructor(fd: number) {
    this.fd = fd;
    const memory = mapShared(fd, WHOLE_BYTES);
    this.#i32 = new Int32Array(memory);
    this.#f64 = new Float64Array(memory);
    this.doubts = new Float64Array(memory, DOUBTS_START, (MOST_DOUBTS * DOUBT_BYTES) / 8);
    this.buffer = new Uint8Array(memory, BUFFER_START, BUFFER_BYTES);
    this.received = Buffer.from(memory, BUFFER_START - TAIL_BYTES, TAIL_BYTES + BUFFER_BYTES);
    for (let index = MOST_IN_FLIGHT - 1; index >= 0; index--) this.#free.push(index);
  }

  /** Makes the memory; the caller owns the descriptor. */
  static create(): KeptState {
    return new KeptState(createKept(LAYOUT));
  }

  /** The memory that an earlier server has made. Null if the descriptor is something else, or of another version. */
  static adopt(fd: number): KeptState | null {
    return isKept(fd, LAYOUT) ? new KeptState(fd) : null;
  }

  /** The slots that are not free. */
  slots(): Slot[] {
    const found: Slot[] = [];
    for (let index = 0; index < MOST_IN_FLIGHT; index++) {
      const word = (SLOTS_START + index * SLOT_BYTES) / 4;
      const state = this.#i32[word + S.state] as SlotState;
      if (state === SLOT.free) continue;
      const [high, low] = [(this.#i32[word + S.high] ?? 0) >>> 0, (this.#i32[word + S.low] ?? 0) >>> 0];
      const [offset, length] = [this.#f64[word / 2 + SF.offset] ?? 0, this.#f64[word / 2 + SF.length] ?? 0];
      const asked = {
        offset: this.#f64[word / 2 + SF.askedOffset] ?? 0,
        length: this.#f64[word / 2 + SF.askedLength] ?? 0,
      };
      found.push({ index, state, high, low, offset, length, asked });
    }
    return found;
  }

  /** Takes a slot for a request that is not sent yet. */
  take(request: Omit<Slot, 'index' | 'state'>): number {
    const index = this.#free.pop();
    if (index === undefined) throw new RangeError('no slot is free');
    const word = (SLOTS_START + index * SLOT_BYTES) / 4;
    this.#i32[word + S.high] = request.high;
    this.#i32[word + S.low] = request.low;
    this.#f64[word / 2 + SF.offset] = request.offset;
    this.#f64[word / 2 + SF.length] = request.length;
    this.#f64[word / 2 + SF.askedOffset] = request.asked.offset;
    this.#f64[word / 2 + SF.askedLength] = request.asked.length;
    this.#i32[word + S.state] = SLOT.queued;
    return index;
  }

  set(index: number, state: SlotState): void {
    // it is never called while bytes are looked at: requests are sent in a later turn
    if (state === SLOT.handing && this.#usedBytes > 0) this.#wipe();
    this.#i32[(SLOTS_START + index * SLOT_BYTES) / 4 + S.state] = state;
  }

  free(index: number): void {
    this.set(index, SLOT.free);
    this.#free.push(index);
  }

  /** Frees all slots: their connection is over. */
  clear(): void {
    this.#free.length = 0;
    for (let index = MOST_IN_FLIGHT - 1; index >= 0; index--) this.free(index);
    this.isTorn = false;
    this.waitsSinceMs = 0;
  }

  /** So many bytes in the buffer were looked at: keeps the last ones, before more comes there. */
  lookedAt(length: number): void {
    this.received.copy(this.received, 0, length, TAIL_BYTES + length);
    this.#usedBytes = Math.max(this.#usedBytes, length);
    if (this.#free.length < MOST_IN_FLIGHT) this.#wipe();
  }

  #wipe(): void {
    this.buffer.fill(0, 0, this.#usedBytes);
    this.#usedBytes = 0;
  }

  /** All that a dead server has received was looked at: keeps the last bytes before the zeros. */
  takeOverReceived(): void {
    let end = this.received.length;
    while (end > TAIL_BYTES && this.received[end - 1] === 0) end -= 1;
    this.received.copy(this.received, 0, end - TAIL_BYTES, end);
    this.buffer.fill(0, 0, end - TAIL_BYTES);
  }

  /** Whether the requests that the kernel has may end inside of one: then nothing can be sent behind them. */
  get isTorn(): boolean {
    return this.#i32[H.isTorn] !== 0;
  }

  set isTorn(isTorn: boolean) {
    this.#i32[H.isTorn] = isTorn ? 1 : 0;
  }

  /**
   * Since when an answer is waited for that may never come: see monotonicMs; 0: none is. A server that waits for it may die, and
   * the next one waits only for the rest: else no request would be done while servers die fast.
   */
  get waitsSinceMs(): number {
    return this.#f64[WAITS_SINCE] ?? 0;
  }

  set waitsSinceMs(sinceMs: number) {
    this.#f64[WAITS_SINCE] = sinceMs;
  }

  /**
   * The inode of the old connection that a server has ended; 0: none. If that server dies before it has another connection, the
   * next one meets an end that is not the NBD server's.
   */
  get endedSocket(): number {
    return this.#f64[ENDED_SOCKET] ?? 0;
  }

  set endedSocket(inode: number) {
    this.#f64[ENDED_SOCKET] = inode;
  }

  /** A write is about to be acknowledged, and is not durable. */
  noteWrite(): void {
    this.#i32[KEPT_WORD.acknowledged] = ((this.#i32[KEPT_WORD.acknowledged] ?? 0) + 1) | 0;
  }

  /** A number for what is acknowledged now: for `noteDurable`. */
  get acknowledged(): number {
    return this.#i32[KEPT_WORD.acknowledged] ?? 0;
  }

  /** All that was acknowledged at that number is durable, or its loss was told. */
  noteDurable(acknowledged: number): void {
    const known = this.#i32[KEPT_WORD.durable] ?? 0;
    if (((acknowledged - known) | 0) > 0) this.#i32[KEPT_WORD.durable] = acknowledged;
  }

  /** Whether acknowledged writes may not be durable. */
  get isUnflushed(): boolean {
    return this.#i32[KEPT_WORD.acknowledged] !== this.#i32[KEPT_WORD.durable];
  }
}
