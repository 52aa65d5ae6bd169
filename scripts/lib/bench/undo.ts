/**
 * The changes to the machine that must be undone: each step is recorded when it is done. All are undone in reverse
 * order, each once, even if others fail.
 */

type Step = () => Promise<unknown>;

export class Undo {
  readonly #steps: Step[] = [];
  #running: Promise<Error[]> | null = null;

  /** Records a step. The step itself must check whether there is still something to undo. */
  defer(step: Step): void {
    this.#steps.push(step);
  }

  /** Makes a new Undo that this one runs too, unless it has run already. */
  nested(): Undo {
    const inner = new Undo();
    this.defer(async () => {
      const errors = await inner.run();
      if (errors.length > 0) throw new AggregateError(errors, errors.map(({ message }) => message).join('; '));
    });
    return inner;
  }

  /** Undoes all steps; a second call waits for the first and has nothing left to undo. Returns the errors. */
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
