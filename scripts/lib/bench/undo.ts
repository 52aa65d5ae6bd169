/**
 * What has been done to the machine and must be undone: each step is noted when it is taken, and all are undone in
 * reverse, each once, whatever happens to the others.
 */

type Step = () => Promise<unknown>;

export class Undo {
  readonly #steps: Step[] = [];
  #running: Promise<Error[]> | null = null;

  /** Notes a step. What it may not need to undo any more it must find out by itself. */
  defer(step: Step): void {
    this.#steps.push(step);
  }

  /** An Undo of its own that this one runs too, if nobody has before. */
  nested(): Undo {
    const inner = new Undo();
    this.defer(async () => {
      const errors = await inner.run();
      if (errors.length > 0) throw new AggregateError(errors, errors.map(({ message }) => message).join('; '));
    });
    return inner;
  }

  /** Undoes all; a second call waits for the first and finds nothing left. Returns what went wrong. */
  async run(): Promise<Error[]> {
    await this.#running;
    this.#running = this.#undoAll();
    return this.#running;
  }

  async #undoAll(): Promise<Error[]> {
    const errors: Error[] = [];
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step();
      } catch (error) {
        errors.push(error instanceof Error ? error : new Error(String(error)));
      }
    }
    return errors;
  }
}
