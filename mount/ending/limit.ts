/**
 * The time limits of an ending. A program or a disk that hangs must not prevent the flush of the others, and systemd
 * kills a service that has not ended after 90 s.
 *
 *      0 ──────── write-back of what is above ──────── ¾ ──── flush of the vbds ──── FUSETAP_FLUSH_LIMIT_MS
 */
import { FusetapError } from '../../drivers/errors.js';
import { readMilliseconds } from '../runtime/environment.js';

const DEFAULT_LIMIT_MS = 75_000;
const VARIABLE = 'FUSETAP_FLUSH_LIMIT_MS';
/** the part of the time for the write-back from above: the rest is for the flush of the vbds */
const SHARE_OF_WRITE_BACK = 0.75;

/** A time limit that runs from `start` on; before, there is no limit. */
export class Limit {
  readonly #ms: number;
  readonly #expired: Promise<typeof EXPIRED>;
  #expire: (() => void) | null = null;
  #startedAt: number | null = null;

  constructor(ms: number) {
    this.#ms = ms;
    this.#expired = new Promise((resolve) => {
      this.#expire = () => resolve(EXPIRED);
    });
  }

  /** Starts the limit; a second call has no effect. */
  start(): void {
    if (this.#startedAt !== null) return;
    this.#startedAt = performance.now();
    setTimeout(() => this.#expire?.(), this.#ms).unref();
  }

  /** Waits for work until the time is up at most: then the result is `late`, and the work goes on. */
  async orLate<Result, Late>(work: Promise<Result>, late: Late): Promise<Result | Late> {
    const first = await Promise.race([work, this.#expired]);
    if (first !== EXPIRED) return first as Result;
    // the outcome is ignored
    work.catch(() => {});
    return late;
  }

  /**
   * Waits for work until the time is up at most.
   * @param what the failure for the message, as `xvda was not flushed`
   * @throws FusetapError FAILED when the time is up
   */
  async wait<Result>(work: Promise<Result>, what: string): Promise<Result> {
    const result = await this.orLate(work, EXPIRED);
    if (result !== EXPIRED) return result as Result;
    throw new FusetapError('FAILED', `${what} within ${this.#ms / 1000} s`, {
      hint: `a disk or a program may hang or be slow: ${VARIABLE} sets the limit`,
      operation: TIME_IS_UP,
    });
  }
}

const EXPIRED = Symbol('expired');
const TIME_IS_UP = 'limit';

/** Whether an error says that the time was up. */
export function isTimeUp(error: unknown): error is FusetapError {
  return error instanceof FusetapError && error.operation === TIME_IS_UP;
}

/** The time of a whole ending. @throws FusetapError USAGE if the variable is not a number of milliseconds */
export const flushLimitMs = (): number => readMilliseconds(VARIABLE, DEFAULT_LIMIT_MS);

/** The limits of one ending. */
export class EndingLimits {
  readonly writeBack: Limit;
  readonly flush: Limit;

  /** @throws FusetapError USAGE if the variable is not a number of milliseconds */
  constructor(limitMs: number = flushLimitMs()) {
    this.writeBack = new Limit(limitMs * SHARE_OF_WRITE_BACK);
    this.flush = new Limit(limitMs);
  }

  /** Starts both limits. */
  start(): this {
    this.writeBack.start();
    this.flush.start();
    return this;
  }
}
