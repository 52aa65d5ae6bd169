/**
 * How long an ending may take. A program or a disk that hangs must not keep the others from being flushed, and systemd
 * kills what has not ended after 90 s.
 *
 *      0 ─────────── what is above is written back ─────────── ¾ ──── vbds are flushed ──── FUSETAP_FLUSH_LIMIT_MS
 */
import { FusetapError } from '../../drivers/errors.js';
import { readMilliseconds } from '../runtime/environment.js';

const DEFAULT_LIMIT_MS = 75_000;
const VARIABLE = 'FUSETAP_FLUSH_LIMIT_MS';
/** how much of the time there is for what lies above: the flush of the vbds needs some in any case */
const SHARE_OF_WRITE_BACK = 0.75;

/** A time limit that runs from `start` on; until then there is none. */
export class Limit {
  readonly #ms: number;
  readonly #passed: Promise<typeof PASSED>;
  #pass: (() => void) | null = null;
  #startedAt: number | null = null;

  constructor(ms: number) {
    this.#ms = ms;
    this.#passed = new Promise((resolve) => {
      this.#pass = () => resolve(PASSED);
    });
  }

  /** The first call counts. */
  start(): void {
    if (this.#startedAt !== null) return;
    this.#startedAt = performance.now();
    setTimeout(() => this.#pass?.(), this.#ms).unref();
  }

  /** Waits for work, at most until the time is up: then the result is `late`, and the work itself goes on. */
  async orLate<Result, Late>(work: Promise<Result>, late: Late): Promise<Result | Late> {
    const first = await Promise.race([work, this.#passed]);
    if (first !== PASSED) return first as Result;
    // nobody looks at how it ends
    work.catch(() => {});
    return late;
  }

  /**
   * Waits for work, at most until the time is up.
   * @param what for the message, as `xvda was not flushed`
   * @throws FusetapError FAILED when the time is up
   */
  async wait<Result>(work: Promise<Result>, what: string): Promise<Result> {
    const result = await this.orLate(work, PASSED);
    if (result !== PASSED) return result as Result;
    throw new FusetapError('FAILED', `${what} within ${this.#ms / 1000} s`, {
      hint: `what it waits for may hang, or be slow: ${VARIABLE} sets the limit`,
      operation: TIME_IS_UP,
    });
  }
}

const PASSED = Symbol('passed');
const TIME_IS_UP = 'limit';

/** Whether an error says that the time was up. */
export function isTimeUp(error: unknown): error is FusetapError {
  return error instanceof FusetapError && error.operation === TIME_IS_UP;
}

/** The limits of one ending. */
export class EndingLimits {
  readonly writeBack: Limit;
  readonly flush: Limit;

  /** @throws FusetapError USAGE if the variable is no number of milliseconds */
  constructor(limitMs: number = readMilliseconds(VARIABLE, DEFAULT_LIMIT_MS)) {
    this.writeBack = new Limit(limitMs * SHARE_OF_WRITE_BACK);
    this.flush = new Limit(limitMs);
  }

  /** From now on the time counts. */
  start(): this {
    this.writeBack.start();
    this.flush.start();
    return this;
  }
}
