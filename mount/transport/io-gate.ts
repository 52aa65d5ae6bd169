/**
 * Counts the I/O of files on the event loop while it is under way, and puts it aside while a file is paused.
 */
import { setTimeout as delay } from 'node:timers/promises';

const POLL_MS = 1;

export class IoGate {
  /** by paused file: the calls that wait for the resume */
  readonly #paused = new Map<number, (() => void)[]>();
  readonly #underWay = new Map<number, number>();

  /** @returns whether the file is paused: then `again` is called when it is resumed */
  putAside(nodeId: number, again: () => void): boolean {
    const waiting = this.#paused.get(nodeId);
    waiting?.push(again);
    return waiting !== undefined;
  }

  isPaused(nodeId: number): boolean {
    return this.#paused.has(nodeId);
  }

  /** Counts the work as under way until it ends. It must not reject. */
  track(nodeId: number, work: Promise<void>): void {
    this.#underWay.set(nodeId, (this.#underWay.get(nodeId) ?? 0) + 1);
    void work.finally(() => {
      const left = (this.#underWay.get(nodeId) ?? 1) - 1;
      if (left > 0) this.#underWay.set(nodeId, left);
      else this.#underWay.delete(nodeId);
    });
  }

  /** Pauses the file: new I/O waits. Resolves when no I/O is under way any more. */
  async pause(nodeId: number): Promise<void> {
    if (!this.#paused.has(nodeId)) this.#paused.set(nodeId, []);
    await this.idle(nodeId);
  }

  /** Resumes the file: calls all that waited, in the order in which they came. */
  resume(nodeId: number): void {
    const waiting = this.#paused.get(nodeId) ?? [];
    this.#paused.delete(nodeId);
    for (const again of waiting) again();
  }

  /** Resolves when no I/O of the file is under way. */
  async idle(nodeId: number): Promise<void> {
    while ((this.#underWay.get(nodeId) ?? 0) > 0) await delay(POLL_MS);
  }
}
