/**
 * A lock on ranges of granules: a change that needs several steps, such as a copy on write, must not meet another one on
 * the same granules. First come, first served: a range waits for all earlier ones that overlap it, also for those that
 * wait themselves. So there is no deadlock, and no change waits for a later one.
 */

interface Held {
  readonly first: number;
  readonly end: number;
  readonly ended: Promise<void>;
}

export class RangeLock {
  readonly #held = new Set<Held>();

  /** Calls `work` when no earlier call for any of these granules is under way. @returns the result of `work` */
  async run<Result>(first: number, count: number, work: () => Promise<Result>): Promise<Result> {
    const end = first + count;
    const before: Promise<void>[] = [];
    for (const other of this.#held) if (other.first < end && first < other.end) before.push(other.ended);
    let release = (): void => {};
    const held: Held = { first, end, ended: new Promise((resolve) => (release = resolve)) };
    this.#held.add(held);
    try {
      if (before.length > 0) await Promise.all(before);
      return await work();
    } finally {
      this.#held.delete(held);
      release();
    }
  }

  /** Whether no call for any of these granules is under way. */
  isFree(first: number, count: number): boolean {
    for (const other of this.#held) if (other.first < first + count && first < other.end) return false;
    return true;
  }

  /** Locks granules that are free, until `release` is called. Later calls for them wait. */
  hold(first: number, count: number): { release(): void } {
    let end = (): void => {};
    const held: Held = { first, end: first + count, ended: new Promise((resolve) => (end = resolve)) };
    this.#held.add(held);
    return {
      release: () => {
        this.#held.delete(held);
        end();
      },
    };
  }
}
