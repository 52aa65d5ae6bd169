/**
 * Ranges that an old connection may still change: see "Disks on a network" in docs/architecture.md. A write to one of them
 * waits until that cannot happen any more.
 */
import type { Operation } from '../operation.js';

interface Doubt {
  readonly offset: number;
  readonly length: number;
  readonly untilMs: number;
  /** the same request, sent again, has passed */
  isRepeated: boolean;
}

type Range = Pick<Operation, 'offset' | 'length'>;

export class Doubts {
  #doubts: Doubt[] = [];

  /** @param isRepeated its repetition is known: nothing else passes */
  add({ offset, length }: Range, untilMs: number, isRepeated: boolean): void {
    this.#doubts.push({ offset, length, untilMs, isRepeated });
  }

  /** Nothing of the old connections is being done any more. */
  clear(): void {
    this.#doubts = [];
  }

  /** How long a write has to wait; 0: it may be sent now. It counts as sent then. */
  waitMs(operation: Operation, nowMs: number): number {
    if (this.#doubts.length === 0) return 0;
    this.#doubts = this.#doubts.filter(({ untilMs }) => untilMs > nowMs);
    const overlapping = this.#doubts.filter((doubt) => overlap(doubt, operation));
    if (overlapping.length === 0 || operation.isRepeated) return 0;
    const [only, ...others] = overlapping;
    const isSame = only?.offset === operation.offset && only.length === operation.length;
    if (only !== undefined && others.length === 0 && isSame && !only.isRepeated) {
      only.isRepeated = true;
      return 0;
    }
    return Math.max(...overlapping.map(({ untilMs }) => untilMs - nowMs));
  }
}

function overlap(a: Range, b: Range): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}
