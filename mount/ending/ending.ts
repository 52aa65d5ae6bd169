/**
 * The one ending of a bus, whoever asks for it: a signal, `stop`, `stop --force`, a bus that failed and is stopped. It is
 * entered once; whoever asks again waits for the same one, and never cuts it short.
 *
 *      acts under way are given up ──► each vbd, side by side: what is above it is written back ─► flushed ─► closed
 *
 * One vbd that fails or hangs keeps no other from being flushed. Used by the keeper, and by a server without one.
 */
import { toFusetapError } from '../../drivers/errors.js';
import type { DetachedVbd } from '../control/interface.js';
import { EndingLimits } from './limit.js';

/** What an ending needs of the process that has the bus. */
export interface EndingBus<Vbd> {
  /** Gives up what is under way, as copies, and resolves when it has ended, or will not soon. */
  giveUpActs(): Promise<void>;
  vbds(): readonly Vbd[];
  /** Takes a vbd away, whoever holds it; where that is under way already, waits for it. */
  takeAway(vbd: Vbd, limits: EndingLimits): Promise<DetachedVbd>;
  /** A vbd that could not be taken away, in the words of the result. */
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

  /** Whether it has begun: nothing can be attached any more, and nothing can stop it. */
  get begun(): boolean {
    return this.#result !== null;
  }

  /** When it is over: the vbds of which not all is durable. */
  get lost(): readonly DetachedVbd[] {
    return this.#lost;
  }

  /**
   * Takes all vbds away. Never rejects: what went wrong with a vbd is its `error` in the result.
   * @param limited from now on it has a time limit
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
