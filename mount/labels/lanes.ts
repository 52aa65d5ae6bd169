/**
 * How many reads of superblocks run at a time. Reads of files take threads of Node's pool, of which a server has four. A disk
 * that hangs keeps its thread, so one must always be left for the requests of clients.
 */
const LANES = 3;

export class Lanes {
  #free = LANES;
  readonly #waiting: (() => void)[] = [];

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
