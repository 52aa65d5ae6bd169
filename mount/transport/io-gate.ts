/**
 * The I/O of files on the event loop: counted while it is under way, and put aside while a file is held.
 */
import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 1;

export class IoGate {
  /** files whose I/O is held, with what waits to be done */
  readonly #held = new Map<number, (() => void)[]>();
  readonly #underWay = new Map<number, number>();

  /** @returns whether `again` was kept, to be called when the file is released */
  putAside(nodeId: number, again: () => void): boolean {
    const waiting = this.#held.get(nodeId);
    waiting?.push(again);
    return waiting !== undefined;
  }

  /** Counts the work as under way until it has ended; it must not reject. */
  track(nodeId: number, work: Promise<void>): void {
    this.#underWay.set(nodeId, (this.#underWay.get(nodeId) ?? 0) + 1);
    void work.finally(() => {
      const left = (this.#underWay.get(nodeId) ?? 1) - 1;
      if (left > 0) this.#underWay.set(nodeId, left);
      else this.#underWay.delete(nodeId);
    });
  }

  /** From now on I/O of the file waits; resolves when none is under way any more. */
  async hold(nodeId: number): Promise<void> {
    if (!this.#held.has(nodeId)) this.#held.set(nodeId, []);
    await this.idle(nodeId);
  }

  /** Does what has waited, in the order it came. */
  release(nodeId: number): void {
    const waiting = this.#held.get(nodeId) ?? [];
    this.#held.delete(nodeId);
    for (const again of waiting) again();
  }

  /** Resolves when no I/O of the file is under way. */
  async idle(nodeId: number): Promise<void> {
    while ((this.#underWay.get(nodeId) ?? 0) > 0) await delay(POLL_MS);
  }
}
