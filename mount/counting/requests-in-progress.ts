/**
 * The requests that the server works on, by file, from the work records of the ledger. The records have no times, so that
 * a request costs nothing more: the age of a request is how long it has been seen here. Who asks every second knows it to
 * the second.
 */
import type { Work } from '../ledger/ledger.js';

export interface InProgress {
  readonly count: number;
  /** how long the oldest one has been seen, in ms, at least */
  readonly oldestMs: number;
}

const NONE: InProgress = { count: 0, oldestMs: 0 };

export class RequestsInProgress {
  /** when each request was first seen, by the number that the kernel gave it */
  #seen = new Map<number, number>();
  #byNode = new Map<number, InProgress>();

  /** @param nowMs monotonic */
  look(work: readonly Work[], nowMs: number): void {
    const seen = new Map<number, number>();
    const byNode = new Map<number, InProgress>();
    for (const { unique, nodeId } of work) {
      const sinceMs = this.#seen.get(unique) ?? nowMs;
      seen.set(unique, sinceMs);
      const { count, oldestMs } = byNode.get(nodeId) ?? NONE;
      byNode.set(nodeId, { count: count + 1, oldestMs: Math.max(oldestMs, nowMs - sinceMs) });
    }
    this.#seen = seen;
    this.#byNode = byNode;
  }

  of(nodeId: number): InProgress {
    return this.#byNode.get(nodeId) ?? NONE;
  }
}
