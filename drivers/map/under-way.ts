/** The calls that are under way, for a change that must wait until those that began before it have ended. */
export class UnderWay {
  readonly #calls = new Set<Promise<unknown>>();

  /** Calls `work`, and counts it as under way until it has ended. @returns its result */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    const call = work();
    this.#calls.add(call);
    try {
      return await call;
    } finally {
      this.#calls.delete(call);
    }
  }

  /** Resolves when all calls that began before this one have ended, also those that fail. */
  async settled(): Promise<void> {
    await Promise.allSettled([...this.#calls]);
  }
}
