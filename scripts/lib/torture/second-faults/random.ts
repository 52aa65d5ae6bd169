/** Random choices that can be repeated: each lane of the torture has a generator of its own, made from the seed. */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = (seed % 2_147_483_646) + 1;
  }

  /** A separate generator for a lane, so that other lanes do not change its choices. */
  fork(lane: number): Random {
    return new Random((this.#state + lane * 7_919) % 2_147_483_647);
  }

  /** A whole number from 0 to below the limit (Park and Miller's generator). */
  below(limit: number): number {
    this.#state = (this.#state * 48_271) % 2_147_483_647;
    return this.#state % limit;
  }

  /** A whole number from the first to the last, both included. */
  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  isOneIn(count: number): boolean {
    return this.below(count) === 0;
  }

  /** @throws RangeError if the list is empty */
  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.below(Math.max(1, items.length))];
    if (item === undefined) throw new RangeError('nothing to pick from');
    return item;
  }
}
