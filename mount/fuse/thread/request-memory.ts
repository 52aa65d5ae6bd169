/**
 * The memory into which threads read requests. All threads and the main thread share it, so that a large request is handed on
 * without a copy: a fresh buffer for each would make both collect garbage for half of their time.
 *
 *      thread: read into my place ──► the main thread must serve it ──► take another place ──► tell the number of the first
 *      main thread: serve the request where it is ──► give the place back
 *
 *      a place:   0                4016        4080      4096                    4096 + 512 KiB
 *                 ├────────────────┼───────────┼─────────┼──────── data ─────────┤
 *
 * See serve-window.ts for what lies where. The first places are those in which threads begin. A place becomes resident
 * (system/resident.ts) when it is first used; what was never used takes no memory of the system.
 */
import { addressOf, plainView } from '../../../system/libc.js';
import { bytesToPage, PAGE_BYTES } from '../../../system/page.js';
import { makeResident } from '../../../system/resident.js';
import * as abi from '../protocol/abi.js';
import { Request } from '../protocol/message.js';
import { MOST_THREADS } from '../protocol/thread-counts.js';

/** smaller requests are copied, and sent as a message */
export const LARGE_REQUEST_BYTES = 8 << 10;
/** as many may be with the main thread */
const MOST_HANDED_ON = 32;
/** so many may be lost: the driver failed, and may still use the bytes. Then large requests are copied, too */
const MOST_LOST = 64;
const PLACES = MOST_THREADS + MOST_HANDED_ON + MOST_LOST;
const PLACE_BYTES = PAGE_BYTES + abi.MAX_WRITE;
/** Where a request begins in its place: the data of a write then begin at a page. */
export const REQUEST_START = PAGE_BYTES - abi.IN_HEADER_SIZE - abi.RW_IN_SIZE;
/** of the state of a place */
const TAKEN = 1;
const RESIDENT = 2;
/** it cannot be locked, as others are */
const UNUSABLE = 4;
/** behind the states of the places: how many are handed on */
const HANDED_ON = PLACES;
const STATES = PLACES + 1;

export type RequestMemory = SharedArrayBuffer;

export function createRequestMemory(): RequestMemory {
  const memory = new SharedArrayBuffer((PLACES + 2) * PLACE_BYTES);
  new Int32Array(memory, 0, MOST_THREADS).fill(TAKEN);
  return memory;
}

/** The bytes of a place. */
export interface Place {
  readonly number: number;
  /** begins at a page */
  readonly address: number;
  readonly bytes: Buffer;
  /** the request in it */
  readonly request: Request;
}

export class RequestPlaces {
  readonly #memory: RequestMemory;
  readonly #states: Int32Array;
  readonly #places: Place[] = [];
  readonly #start: number;
  /** whether memory can be locked here */
  #locks = false;

  constructor(memory: RequestMemory) {
    this.#memory = memory;
    this.#states = new Int32Array(memory, 0, STATES);
    const statesBytes = this.#states.byteLength;
    this.#start = statesBytes + bytesToPage(addressOf(this.#states) + statesBytes);
  }

  /** The place in which a thread begins. A thread that could not be loaded begins there again. */
  first(thread: number): Place {
    const place = this.at(thread);
    this.#locks = makeResident(place);
    Atomics.or(this.#states, thread, RESIDENT);
    return place;
  }

  /** Takes another place instead of one that is handed on; null if too many are, or are lost. */
  takeAnother(): Place | null {
    const place = Atomics.add(this.#states, HANDED_ON, 1) < MOST_HANDED_ON ? this.#take() : null;
    if (place === null) Atomics.sub(this.#states, HANDED_ON, 1);
    return place;
  }

  #take(): Place | null {
    // the first ones are in the caches of the processor
    for (let number = 0; number < PLACES; number++) {
      const state = Atomics.load(this.#states, number);
      if ((state & (TAKEN | UNUSABLE)) !== 0) continue;
      if (Atomics.compareExchange(this.#states, number, state, state | TAKEN) !== state) continue;
      const place = this.at(number);
      if ((state & RESIDENT) !== 0) return place;
      const isLocked = makeResident(place);
      Atomics.or(this.#states, number, isLocked || !this.#locks ? RESIDENT : UNUSABLE);
      if (isLocked || !this.#locks) return place;
      // the limit is reached: what is locked is enough for less than this
      return null;
    }
    return null;
  }

  /** Nobody uses the bytes of a place that was handed on any more. */
  give(number: number): void {
    Atomics.and(this.#states, number, ~TAKEN);
    // last: so there is always a place for what is counted
    Atomics.sub(this.#states, HANDED_ON, 1);
  }

  /** A driver that failed may use the bytes of a place that was handed on, for ever. */
  lose(): void {
    Atomics.sub(this.#states, HANDED_ON, 1);
  }

  /** A place that somebody has. */
  at(number: number): Place {
    const known = this.#places[number];
    if (known !== undefined) return known;
    const bytes = plainView(this.#memory, this.#start + number * PLACE_BYTES, PLACE_BYTES);
    const place = { number, address: addressOf(bytes), bytes, request: new Request(bytes.subarray(REQUEST_START)) };
    this.#places[number] = place;
    return place;
  }
}
