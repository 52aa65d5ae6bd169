/**
 * The ending of a bus: by a signal, `stop`, `stop --force`, or a stop of a bus that failed. It runs only once. A second
 * request waits for the same ending and does not shorten it.
 *
 *      acts under way are given up ──► for all vbds at the same time: write back what is above it ─► flush ─► close
 *
 * A vbd that fails or hangs does not prevent the flush of the others. Used by the keeper, and by a server without a
 * keeper.
 */
import { toFusetapError } from '../../drivers/errors.js';
import type { DetachedVbd } from '../control/interface.js';
import { EndingLimits } from './limit.js';

/** The functions that an ending needs from the process that has the bus. */
export interface EndingBus<Vbd> {
  /** Gives up acts under way, such as copies. Resolves when they have ended, or after a limit. */
  giveUpActs(): Promise<void>;
  vbds(): readonly Vbd[];
  /** Detaches a vbd by force. If its detach is under way already, waits for it. */
  takeAway(vbd: Vbd, limits: EndingLimits): Promise<DetachedVbd>;
  /** The result for a vbd that could not be detached, without its error. */
  describe(vbd: Vbd): DetachedVbd;
}

export class Ending<Vbd> {
  readonly #bus: EndingBus<Vbd>;
  readonly #limits = new EndingLimits();
  #result: Promise<DetachedVbd[]> | null = null;
  #lost: readonly DetachedVbd[] = [];

  constructor(bus: EndingBus<Vbd>) {
    this.#bus = bus;
  }

  /** Whether it has begun: then nothing can be attached any more, and it cannot be stopped. */
  get begun(): boolean {
    return this.#result !== null;
  }

  /** When it is over: the vbds whose data may not all be durable. */
  get lost(): readonly DetachedVbd[] {
    return this.#lost;
  }

  /**
   * Detaches all vbds. Never rejects: a failure of a vbd is its `error` in the result.
   * @param limited the time limit starts now
   */
  run(limited: boolean): Promise<DetachedVbd[]> {
    if (limited) this.#limits.start();
    this.#result ??= this.#goThrough();
    return this.#result;
  }

  async #goThrough(): Promise<DetachedVbd[]> {
    const { giveUpActs, vbds } = this.#bus;
    await giveUpActs().catch((error: unknown) => console.error('while giving up what was under way:', error));
    const gone = await Promise.all(vbds().map((vbd) => this.#takeAway(vbd)));
    this.#lost = gone.filter(({ error }) => error !== undefined);
    return gone;
  }

  async #takeAway(vbd: Vbd): Promise<DetachedVbd> {
    try {
      return await this.#bus.takeAway(vbd, this.#limits);
    } catch (error) {
      console.error('while a vbd was taken away:', error);
      const reason = error instanceof Error ? error.message : String(error);
      return { ...this.#bus.describe(vbd), error: toFusetapError(error, reason).toJSON() };
    }
  }
}
