/**
 * Requests that the event loop reads from the device itself, as long as requests come that only it serves. This saves the
 * way from a thread to the event loop, which takes longer than most requests.
 *
 *      thread       a request is not for me ──► lend my permit ──► hand it on ──► wait for a permit
 *      event loop   serve it ──► read and serve the next ones ──► none for a moment ──► give the permits back
 *                                  └─► one that threads serve ──► a thread that waits gets it, and the permits
 *
 * The event loop reads without blocking, from its own clone of /dev/fuse. A thread takes its permit back if the event
 * loop stands still, so that a slow request there does not leave the device unread.
 */
import { E, read, setNonBlocking } from '../../../system/libc.js';
import { PAGE_BYTES } from '../../../system/page.js';
import { allocateResident, type Resident } from '../../../system/resident.js';
import { now } from '../../ledger/counters.js';
import * as abi from '../protocol/abi.js';
import { isWellFormed, Request } from '../protocol/message.js';
import { crashPoint } from '../thread/crash-point.js';
import type { HandedBack } from '../thread/thread.js';
import type { ThreadWatch } from '../thread/thread-control.js';

/** how long the event loop asks for another request; most clients send the next one within this time */
const IDLE_MS = 0.05;
/**
 * how long it asks while a request waits for a disk that answers within this time, as many at the other end of a socket do: then
 * the client sends the next request. While it waits for a slower disk, others need the processor.
 */
const ANSWER_MS = 0.25;
/** requests in one turn of the event loop, which has other work too */
const MOST_IN_TURN = 16;
/** until a thread that has not seen its offer is woken again */
const REMIND_MS = 5;
/** pause after a request that threads serve: there may be more of them */
const REST_MS = 10;

export interface OwnReadsOptions {
  /** a clone that nobody else reads, and its number */
  readonly deviceFd: number;
  readonly device: number;
  readonly watch: ThreadWatch;
  /** serves the request in the first bytes of a buffer, which the next request overwrites */
  serve(bytes: Uint8Array, length: number): void;
  /** whether threads serve the request */
  isForThreads(request: Request): boolean;
  post(thread: number, request: HandedBack): void;
  /** how many threads there are */
  threads(): number;
  /** how many requests the event loop has not answered, and how long its reads and writes take on average */
  underWay(): number;
  answerMs(): number;
}

export class OwnReads {
  readonly #options: OwnReadsOptions;
  readonly #buffer: Resident;
  readonly #request: Request;
  #isReading = false;
  #lastMs = 0;
  #underWay = 0;

  constructor(options: OwnReadsOptions) {
    this.#options = options;
    this.#buffer = allocateResident(PAGE_BYTES + abi.MAX_WRITE);
    this.#request = new Request(this.#buffer.bytes);
  }

  /** To be called when no other server reads: until then the device flags belong to that server. */
  begin(): void {
    setNonBlocking(this.#options.deviceFd, true);
    this.#options.watch.readsItself = true;
  }

  /** A thread has handed on a request, and has lent its permit. */
  handedOn(): void {
    this.#lastMs = now();
    if (this.#isReading) return;
    this.#isReading = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    const { watch } = this.#options;
    if (watch.beginRead() && this.#readSome()) {
      setImmediate(this.#turn);
      return;
    }
    this.#isReading = false;
    watch.giveBack();
  };

  /** @returns whether to read again in the next turn */
  #readSome(): boolean {
    const { deviceFd, serve, isForThreads } = this.#options;
    for (let count = 0; count < MOST_IN_TURN; count++) {
      const n = read(deviceFd, this.#buffer.address, this.#buffer.bytes.length);
      if (n === -E.EAGAIN) {
        return this.#mayCome(count > 0);
      }
      // EINTR, ENOENT (the request was withdrawn); after the end of the connection a thread sees the same
      if (n < 0) return n === -E.EINTR || n === -E.ENOENT;
      if (crashPoint !== null) crashPoint('read', this.#request.opcode);
      if (isWellFormed(this.#request, n) && isForThreads(this.#request)) {
        if (!this.#handBack(n)) serve(this.#buffer.bytes, n);
        return this.#rest();
      }
      serve(this.#buffer.bytes, n);
    }
    this.#lastMs = now();
    return true;
  }

  /** No request is there. @returns whether one may come soon */
  #mayCome(hasServed: boolean): boolean {
    const nowMs = now();
    const underWay = this.#options.underWay();
    // a client that has its answer sends the next request
    if (hasServed || underWay < this.#underWay) this.#lastMs = nowMs;
    this.#underWay = underWay;
    const isSoon = underWay > 0 && this.#options.answerMs() < ANSWER_MS;
    return nowMs - this.#lastMs < (isSoon ? ANSWER_MS : IDLE_MS);
  }

  /** A driver could need the pool of the event loop for it, and a disk that hangs must not take that from others. */
  #handBack(n: number): boolean {
    const { watch, device, deviceFd, post, threads } = this.#options;
    const bytes = new Uint8Array(this.#buffer.bytes.subarray(0, n));
    for (let thread = threads() - 1; thread >= 0; thread--) {
      if (!watch.offer(thread, (number) => post(thread, { number, bytes, device, deviceFd }))) continue;
      this.#remind(thread);
      return true;
    }
    return false;
  }

  #remind(thread: number): void {
    const { watch } = this.#options;
    setTimeout(() => {
      if (!watch.isOffered(thread)) return;
      watch.announce();
      this.#remind(thread);
    }, REMIND_MS);
  }

  #rest(): false {
    const { watch } = this.#options;
    watch.readsItself = false;
    setTimeout(() => {
      watch.readsItself = true;
    }, REST_MS).unref();
    return false;
  }
}
