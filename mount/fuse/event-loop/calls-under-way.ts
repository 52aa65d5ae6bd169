/**
 * The requests that the main thread works on. Each has one of the ledger's work records while it is worked on: if this
 * server dies, the next one knows which requests may be why. I/O of a file that is held waits here.
 */
import { now } from '../../ledger/counters.js';
import { type Ledger, MAIN_WORK_START, WORK_PLACES } from '../../ledger/ledger.js';
import { IoGate } from '../../transport/io-gate.js';
import type { Request } from '../protocol/message.js';

/** A request whose answer is being made. */
export interface Call {
  readonly request: Request;
  readonly thread: number;
  /** its place among the ledger's work records; −1 where all are taken */
  readonly place: number;
  readonly begunMs: number;
}

export class CallsUnderWay {
  readonly #ledger: Ledger;
  readonly #answer: (call: Call) => void;
  readonly #gate = new IoGate();
  readonly #freePlaces = Array.from({ length: WORK_PLACES - MAIN_WORK_START }, (_, i) => MAIN_WORK_START + i);

  /** @param answer answers a call that has waited */
  constructor(ledger: Ledger, answer: (call: Call) => void) {
    this.#ledger = ledger;
    this.#answer = answer;
  }

  begin(thread: number, request: Request): Call {
    const place = this.#freePlaces.pop() ?? -1;
    const call = { request, thread, place, begunMs: now() };
    if (place >= 0) this.#ledger.beginWork(place, request.uniqueId);
    return call;
  }

  /** The call was answered, or needs no answer. */
  end({ place }: Call): void {
    if (place < 0) return;
    this.#ledger.endWork(place);
    this.#freePlaces.push(place);
  }

  /**
   * A call that is put aside is not worked on: if this server dies, it is no evidence against the request.
   * @returns whether the call was put aside until its file is released
   */
  putAside(call: Call): boolean {
    const { place, request } = call;
    const isHeld = this.#gate.putAside(request.nodeId, () => {
      if (place >= 0) this.#ledger.beginWork(place, request.uniqueId);
      this.#answer(call);
    });
    if (isHeld && place >= 0) this.#ledger.leaveWork(place);
    return isHeld;
  }

  /** Counts I/O of the call's file as under way until `work` has ended; it must not reject. */
  track({ request }: Call, work: Promise<void>): void {
    this.#gate.track(request.nodeId, work);
  }

  /** From now on I/O of the file waits; resolves when none is under way any more. */
  hold(nodeId: number): Promise<void> {
    return this.#gate.hold(nodeId);
  }

  /** Answers what has waited, in the order it came. */
  release(nodeId: number): void {
    this.#gate.release(nodeId);
  }
}
