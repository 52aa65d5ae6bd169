/** Runs works, at most so many of them at a time, in the order in which they come. */
export class Lanes {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  /** @param count how many run at a time */
  constructor(count: number) {
    this.#free = count;
  }

  /** Runs the work when a lane is free. */
  async run<Result>(work: () => Promise<Result>): Promise<Result> {
    if (this.#free > 0) this.#free -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.#waiting.shift();
      if (next === undefined) this.#free += 1;
      else next();
    }
  }
}
