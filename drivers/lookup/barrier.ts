/**
 * Flushes that several writers share. A writer whose data must be durable before it goes on waits for a flush that began
 * after its data was written: the next one, if one is under way.
 */
export class Barrier {
  readonly #flush: () => Promise<void>;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  #begun = 0;
  #done = 0;

  constructor(flush: () => Promise<void>) {
    this.#flush = flush;
  }

  /** Marks a time: see hasPassed. */
  get now(): number {
    return this.#begun;
  }

  /** Whether all that was written before a time is durable. */
  hasPassed(time: number): boolean {
    return this.#done > time;
  }

  /** Resolves when all that was written before the call is durable. */
  async pass(): Promise<void> {
    if (this.#running === null) return await this.#run();
    this.#next ??= this.#running
      .catch(() => {})
      .then(() => {
        this.#next = null;
        return this.#run();
      });
    await this.#next;
  }

  #run(): Promise<void> {
    this.#begun += 1;
    const number = this.#begun;
    const running = this.#flush()
      .then(() => {
        this.#done = Math.max(this.#done, number);
      })
      .finally(() => {
        if (this.#running === running) this.#running = null;
      });
    this.#running = running;
    return running;
  }
}
