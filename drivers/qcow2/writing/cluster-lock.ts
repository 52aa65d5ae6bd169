/** The lock of guest clusters that are being changed, by ranges of the disk. */
import { type Granules, RangeLock } from '../../map/range-lock.js';

export class ClusterLock {
  readonly #lock = new RangeLock();
  readonly #clusterBytes: number;

  constructor(clusterBytes: number) {
    this.#clusterBytes = clusterBytes;
  }

  /** Calls `work` when no earlier call for any of the clusters of a range is under way. */
  run<Result>(offset: number, length: number, work: () => Promise<Result>): Promise<Result> {
    const { first, count } = this.#clustersOf(offset, length);
    return this.#lock.run(first, count, work);
  }

  /** The same for several ranges of clusters, which are locked in one step. */
  runAll<Result>(clusters: readonly Granules[], work: () => Promise<Result>): Promise<Result> {
    return this.#lock.runAll(clusters, work);
  }

  /** Whether no call for any of the clusters of a range is under way. */
  isFree(offset: number, length: number): boolean {
    const { first, count } = this.#clustersOf(offset, length);
    return this.#lock.isFree(first, count);
  }

  /** Locks the clusters of a range, which are free, until `release` is called. */
  hold(offset: number, length: number): { release(): void } {
    const { first, count } = this.#clustersOf(offset, length);
    return this.#lock.hold(first, count);
  }

  #clustersOf(offset: number, length: number): Granules {
    const first = Math.floor(offset / this.#clusterBytes);
    return { first, count: Math.ceil((offset + length) / this.#clusterBytes) - first };
  }
}
