/**
 * Flushes that several writers share. A writer whose data must be durable before it goes on waits for a flush that began
 * after its data was written: the next one, if one is under way.
 *
 * The kernel reports each failed write-back once per open file description. So a flush that fails may have failed for the
 * data of anybody who waits: all of them get the error. And a client must learn of it even if only the driver flushed:
 * `flush` reports failures since its last call.
 */
export class Barrier {
  readonly #flush: () => Promise<void>;
  #running: Promise<void> | null = null;
  #next: Promise<void> | null = null;
  /** the last failure that no client knows */
  #untold: { readonly error: unknown } | null = null;
  #begun = 0;
  #done = 0;
  /** the last flush that failed: what was written until then may never be durable */
  #lost = -1;

  constructor(flush: () => Promise<void>) {
    this.#flush = flush;
  }

  /** Marks a time: see hasPassed. */
  get now(): number {
    return this.#begun;
  }

  /** Whether all that was written before a time is durable. A negative time is before all that can have failed. */
  hasPassed(time: number): boolean {
    return this.#done > time && (time > this.#lost || time < 0);
  }

  /** Flushes for a client: as `pass`, but also rejects if a flush has failed since the last call. */
  async flush(): Promise<void> {
    const failed = await this.pass().then(
      () => null,
      (error: unknown) => ({ error }),
    );
    const untold = failed ?? this.#untold;
    this.#untold = null;
    if (untold !== null) throw untold.error;
  }

  /** Resolves when all that was written before the call is durable. */
  async pass(): Promise<void> {
    if (this.#running === null) return await this.#run();
    this.#next ??= this.#afterRunning(this.#running);
    await this.#next;
  }

  async #afterRunning(running: Promise<void>): Promise<void> {
    try {
      await running;
    } finally {
      this.#next = null;
    }
    await this.#run();
  }

  #run(): Promise<void> {
    this.#begun += 1;
    const number = this.#begun;
    const running = this.#flush()
      .then(
        () => {
          this.#done = Math.max(this.#done, number);
        },
        (error: unknown) => {
          this.#untold = { error };
          this.#lost = this.#begun;
          throw error;
        },
      )
      .finally(() => {
        if (this.#running === running) this.#running = null;
      });
    this.#running = running;
    return running;
  }
}
