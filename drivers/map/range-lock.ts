/**
 * A lock on ranges of granules: a change that needs several steps, such as a copy on write, must not meet another one on
 * the same granules. First come, first served: a range waits for all earlier ones that overlap it, also for those that
 * wait themselves. So there is no deadlock, and no change waits for a later one.
 */

/** Granules that follow one another. */
export interface Granules {
  readonly first: number;
  readonly count: number;
}

interface Held extends Granules {
  readonly ended: Promise<void>;
}

export class RangeLock {
  readonly #held = new Set<Held>();

  /** Calls `work` when no earlier call for any of these granules is under way. @returns the result of `work` */
  async run<Result>(first: number, count: number, work: () => Promise<Result>): Promise<Result> {
    return await this.runAll([{ first, count }], work);
  }

  /** The same for several ranges. They are taken in one step: two calls never wait for each other. */
  async runAll<Result>(ranges: readonly Granules[], work: () => Promise<Result>): Promise<Result> {
    const before: Promise<void>[] = [];
    for (const other of this.#held) if (ranges.some((range) => overlap(other, range))) before.push(other.ended);
    let release = (): void => {};
    const ended = new Promise<void>((resolve) => (release = resolve));
    const held = ranges.map((range): Held => ({ ...range, ended }));
    for (const each of held) this.#held.add(each);
    try {
      if (before.length > 0) await Promise.all(before);
      return await work();
    } finally {
      for (const each of held) this.#held.delete(each);
      release();
    }
  }

  /** Whether no call for any of these granules is under way. */
  isFree(first: number, count: number): boolean {
    for (const other of this.#held) if (overlap(other, { first, count })) return false;
    return true;
  }

  /** Locks granules that are free, until `release` is called. Later calls for them wait. */
  hold(first: number, count: number): { release(): void } {
    let end = (): void => {};
    const held: Held = { first, count, ended: new Promise((resolve) => (end = resolve)) };
    this.#held.add(held);
    return {
      release: () => {
        this.#held.delete(held);
        end();
      },
    };
  }
}

function overlap(a: Granules, b: Granules): boolean {
  return a.first < b.first + b.count && b.first < a.first + a.count;
}
