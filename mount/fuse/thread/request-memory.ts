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
 * See serve-window.ts for what lies where. A place becomes resident (system/resident.ts) when it is first taken; what was
 * never used takes no memory of the system. A place is lost for this server if the driver failed, and may still use the bytes.
 */
import { addressOf } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { makeResident } from '../../../system/resident.js';
import * as abi from '../protocol/abi.js';
import { Request } from '../protocol/message.js';
import { MOST_THREADS } from '../protocol/thread-counts.js';

/** smaller requests are copied, and sent as a message */
export const LARGE_REQUEST_BYTES = 8 << 10;
/** as many may be with the main thread; each thread has another one */
const MOST_HANDED_ON = 32;
const PLACES = MOST_HANDED_ON + MOST_THREADS;
const PLACE_BYTES = PAGE_BYTES + abi.MAX_WRITE;
/** Where a request begins in its place: the data of a write then begin at a page. */
export const REQUEST_START = PAGE_BYTES - abi.IN_HEADER_SIZE - abi.RW_IN_SIZE;
/** of the state of a place */
const TAKEN = 1;
const RESIDENT = 2;
/** behind the states of the places: how many are handed on */
const HANDED_ON = PLACES;
const STATES = PLACES + 1;

export type RequestMemory = SharedArrayBuffer;

export const createRequestMemory = (): RequestMemory => new SharedArrayBuffer((PLACES + 2) * PLACE_BYTES);

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

  constructor(memory: RequestMemory) {
    this.#memory = memory;
    this.#states = new Int32Array(memory, 0, STATES);
    const address = addressOf(this.#states);
    this.#start = Math.ceil((address + STATES * 4) / PAGE_BYTES) * PAGE_BYTES - address;
  }

  /** Takes another place instead of one that is handed on; null if too many are. */
  takeAnother(): Place | null {
    if (Atomics.add(this.#states, HANDED_ON, 1) < MOST_HANDED_ON) return this.take();
    Atomics.sub(this.#states, HANDED_ON, 1);
    return null;
  }

  /** Takes a place for a thread; it is resident then. */
  take(): Place {
    // the first ones are in the caches of the processor
    for (let number = 0; number < PLACES; number++) {
      const state = Atomics.load(this.#states, number);
      if ((state & TAKEN) !== 0) continue;
      if (Atomics.compareExchange(this.#states, number, state, state | TAKEN) !== state) continue;
      const place = this.at(number);
      if ((state & RESIDENT) === 0) {
        makeResident(place);
        Atomics.or(this.#states, number, RESIDENT);
      }
      return place;
    }
    throw new RangeError('there are more threads than places for requests');
  }

  /** Nobody uses the bytes of a place that was handed on any more. */
  give(number: number): void {
    Atomics.and(this.#states, number, ~TAKEN);
    // last: so there is always a place for what is counted
    Atomics.sub(this.#states, HANDED_ON, 1);
  }

  /** A place that somebody has taken. */
  at(number: number): Place {
    const known = this.#places[number];
    if (known !== undefined) return known;
    // Buffer.from takes shared memory too, its type does not say so
    const bytes = Buffer.from(this.#memory as unknown as ArrayBuffer, this.#start + number * PLACE_BYTES, PLACE_BYTES);
    const place = { number, address: addressOf(bytes), bytes, request: new Request(bytes.subarray(REQUEST_START)) };
    this.#places[number] = place;
    return place;
  }
}
