/**
 * The requests that the main thread works on. Each has a work record in the ledger meanwhile: if this server dies, the
 * next server knows which requests may be the cause. I/O of a paused file waits here.
 */
import { now } from '../../ledger/counters.js';
import { type Ledger, MAIN_WORK_START, WORK_PLACES } from '../../ledger/ledger.js';
import { IoGate } from '../../transport/io-gate.js';
import type { Request } from '../protocol/message.js';
import type { RequestOwner } from './request-pool.js';

/** how many answers change the average most of the way */
const AVERAGED = 16;

/** A request that is not answered yet. */
export interface Call {
  readonly request: Request;
  readonly thread: number;
  /** its place among the ledger's work records; −1 if all are taken */
  readonly place: number;
  readonly begunMs: number;
  /** where the memory of the request goes when the call ends; null: it is not used again */
  pool: RequestOwner | null;
}

export class CallsUnderWay {
  readonly #ledger: Ledger;
  readonly #answer: (call: Call) => void;
  #count = 0;
  #answerMs = 0;
  readonly gate = new IoGate();
  readonly #freePlaces = Array.from({ length: WORK_PLACES - MAIN_WORK_START }, (_, i) => MAIN_WORK_START + i);

  /** @param answer answers a call that has waited */
  constructor(ledger: Ledger, answer: (call: Call) => void) {
    this.#ledger = ledger;
    this.#answer = answer;
  }

  /** How many calls are under way, also those that were put aside. */
  get count(): number {
    return this.#count;
  }

  /** How long reads and writes take now, on average. */
  get answerMs(): number {
    return this.#answerMs;
  }

  /** A read or write has taken that long. */
  noteAnswer(tookMs: number): void {
    this.#answerMs += (tookMs - this.#answerMs) / AVERAGED;
  }

  begin(thread: number, request: Request, pool: RequestOwner | null = null): Call {
    this.#count += 1;
    const place = this.#freePlaces.pop() ?? -1;
    const call = { request, thread, place, begunMs: now(), pool };
    if (place >= 0) this.#ledger.beginWork(place, request.uniqueId, request.nodeId);
    return call;
  }

  /** Call when the request was answered, or needs no answer. Nobody may look at it afterwards. */
  end({ place, request, pool }: Call): void {
    this.#count -= 1;
    pool?.give(request);
    if (place < 0) return;
    this.#ledger.endWork(place);
    this.#freePlaces.push(place);
  }

  /**
   * Puts a call aside if its file is paused. It then has no work record: if this server dies, the call is not the
   * cause.
   * @returns whether the call was put aside until its file is resumed
   */
  putAside(call: Call): boolean {
    const { place, request } = call;
    const isPaused = this.gate.putAside(request.nodeId, () => {
      if (place >= 0) this.#ledger.beginWork(place, request.uniqueId, request.nodeId);
      this.#answer(call);
    });
    if (isPaused && place >= 0) this.#ledger.leaveWork(place);
    return isPaused;
  }

  /** Counts I/O of the call's file as under way until `work` has ended; it must not reject. */
  track({ request }: Call, work: Promise<void>): void {
    this.gate.track(request.nodeId, work);
  }

  /** Pauses the file: new I/O waits. Resolves when no I/O is under way any more. */
  pause(nodeId: number): Promise<void> {
    return this.gate.pause(nodeId);
  }

  /** Resumes the file: answers all calls that waited, in the order in which they came. */
  resume(nodeId: number): void {
    this.gate.resume(nodeId);
  }
}
