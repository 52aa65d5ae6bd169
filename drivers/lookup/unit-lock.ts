/** The lock of the clusters or blocks of a disk that are being changed, by ranges of the disk. */
import { type Granules, RangeLock } from '../map/range-lock.js';

export class UnitLock {
  readonly #lock = new RangeLock();
  readonly #unitBytes: number;

  constructor(unitBytes: number) {
    this.#unitBytes = unitBytes;
  }

  /** Calls `work` when no earlier call for any of the units of a range is under way. */
  run<Result>(offset: number, length: number, work: () => Promise<Result>): Promise<Result> {
    const { first, count } = this.#unitsOf(offset, length);
    return this.#lock.run(first, count, work);
  }

  /** The same for several ranges of units, which are locked in one step. */
  runAll<Result>(units: readonly Granules[], work: () => Promise<Result>): Promise<Result> {
    return this.#lock.runAll(units, work);
  }

  /** Whether no call for any of the units of a range is under way. */
  isFree(offset: number, length: number): boolean {
    const { first, count } = this.#unitsOf(offset, length);
    return this.#lock.isFree(first, count);
  }

  /** Locks the units of a range, which are free, until `release` is called. */
  hold(offset: number, length: number): { release(): void } {
    const { first, count } = this.#unitsOf(offset, length);
    return this.#lock.hold(first, count);
  }

  #unitsOf(offset: number, length: number): Granules {
    const first = Math.floor(offset / this.#unitBytes);
    return { first, count: Math.ceil((offset + length) / this.#unitBytes) - first };
  }
}
