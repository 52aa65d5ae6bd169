/**
 * Flushes that several writers share. A writer whose data must be durable before it goes on waits for a flush that began
 * after its data was written: the next one, if one is under way.
 */
export class Barrier {
  readonly #flush: () => Promise<void>;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;

  constructor(flush: () => Promise<void>) {
    this.#flush = flush;
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
    const running = this.#flush().finally(() => {
      if (this.#running === running) this.#running = null;
    });
    this.#running = running;
    return running;
  }
}
