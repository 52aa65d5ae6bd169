/**
 * Ranges that an old connection may still change: see "Disks on a network" in docs/architecture.md. A write to one of them
 * waits until that cannot happen any more. They are in the memory that outlives this process: the next server waits, too.
 */
import type { Operation, Range } from '../operation.js';

/** Whether the same request, sent again, may pass. */
const PASSES = { once: 0, hasPassed: 1, never: 2 } as const;

interface Doubt {
  offset: number;
  length: number;
  /** see Operation.asked: a block may be written for one sector, and then for another one */
  readonly asked: Range;
  /** see monotonicMs */
  untilMs: number;
  passes: (typeof PASSES)[keyof typeof PASSES];
  /** in the memory */
  readonly place: number;
}

/** What may be sent again. */
export type Repeatable = Pick<Operation, 'offset' | 'length' | 'asked'>;

/** float64 words of a place; a place is free if its time is 0 */
const enum W {
  untilMs = 0,
  offset = 1,
  length = 2,
  passes = 3,
  askedOffset = 4,
  askedLength = 5,
}
const WORDS = 8;
export const DOUBT_BYTES = WORDS * 8;

export class Doubts {
  readonly #words: Float64Array;
  #doubts: Doubt[] = [];

  /** @param words the memory, zeros at first */
  constructor(words: Float64Array) {
    this.#words = words;
  }

  /** Takes over those of an earlier server, which has ended. */
  load(): void {
    const words = this.#words;
    this.#doubts = [];
    for (let place = 0; place * WORDS < words.length; place++) {
      const at = place * WORDS;
      const [untilMs = 0, offset = 0, length = 0, passes = 0] = words.subarray(at);
      const asked = { offset: words[at + W.askedOffset] ?? 0, length: words[at + W.askedLength] ?? 0 };
      if (untilMs > 0) this.#doubts.push({ offset, length, asked, untilMs, passes: passes as Doubt['passes'], place });
    }
  }

  /** @param mayRepeat whether the same request may be sent again */
  add({ offset, length, asked }: Repeatable, untilMs: number, mayRepeat = true): void {
    this.#forget(monotonicMs());
    const passes = mayRepeat ? PASSES.once : PASSES.never;
    const known = this.#doubts.find(
      (doubt) => isSame(doubt, { offset, length, asked }) && doubt.passes !== PASSES.never,
    );
    if (known !== undefined) {
      known.untilMs = Math.max(known.untilMs, untilMs);
      known.passes = passes;
      return this.#save(known);
    }
    const place = this.#freePlace();
    if (place === null) return this.#widen({ offset, length }, untilMs);
    const doubt = { offset, length, asked, untilMs, passes, place };
    this.#doubts.push(doubt);
    this.#save(doubt);
  }

  /** A request will not be sent again: another one with the same range is not the same. */
  forbid(operation: Operation): void {
    for (const doubt of this.#doubts) {
      if (!isSame(doubt, operation)) continue;
      doubt.passes = PASSES.never;
      this.#save(doubt);
    }
  }

  /** Nothing of the old connections is being done any more. */
  clear(): void {
    this.#forget(Number.POSITIVE_INFINITY);
  }

  /** How long a write has to wait; 0: it may be sent now. It counts as sent then. */
  waitMs(operation: Operation): number {
    if (this.#doubts.length === 0) return 0;
    const nowMs = monotonicMs();
    this.#forget(nowMs);
    const overlapping = this.#doubts.filter((doubt) => overlap(doubt, operation));
    const same = overlapping.find((doubt) => isSame(doubt, operation));
    const isFirst = overlapping.length === 1 && same?.passes === PASSES.once;
    if (!operation.isRepeated && !isFirst) return Math.max(0, ...overlapping.map(({ untilMs }) => untilMs - nowMs));
    if (same?.passes === PASSES.once) {
      same.passes = PASSES.hasPassed;
      this.#save(same);
    }
    return 0;
  }

  #forget(nowMs: number): void {
    for (const { untilMs, place } of this.#doubts) if (untilMs <= nowMs) this.#words[place * WORDS + W.untilMs] = 0;
    this.#doubts = this.#doubts.filter(({ untilMs }) => untilMs > nowMs);
  }

  #freePlace(): number | null {
    const taken = new Set(this.#doubts.map(({ place }) => place));
    for (let place = 0; place * WORDS < this.#words.length; place++) if (!taken.has(place)) return place;
    return null;
  }

  /** There is no room for another one: the last one becomes larger. */
  #widen(range: Range, untilMs: number): void {
    const last = this.#doubts.at(-1) as Doubt;
    const end = Math.max(last.offset + last.length, range.offset + range.length);
    last.offset = Math.min(last.offset, range.offset);
    last.length = end - last.offset;
    last.untilMs = Math.max(last.untilMs, untilMs);
    last.passes = PASSES.never;
    this.#save(last);
  }

  /** The time is written last: a place that is written in part does not count. */
  #save({ offset, length, asked, untilMs, passes, place }: Doubt): void {
    const at = place * WORDS;
    this.#words[at + W.offset] = offset;
    this.#words[at + W.length] = length;
    this.#words[at + W.passes] = passes;
    this.#words[at + W.askedOffset] = asked.offset;
    this.#words[at + W.askedLength] = asked.length;
    this.#words[at + W.untilMs] = untilMs;
  }
}

/** CLOCK_MONOTONIC: the same for all processes of this machine. */
export function monotonicMs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1000 + nanoseconds / 1e6;
}

function isSame(a: Repeatable, b: Repeatable): boolean {
  return isSameRange(a, b) && isSameRange(a.asked, b.asked);
}

function isSameRange(a: Range, b: Range): boolean {
  return a.offset === b.offset && a.length === b.length;
}

function overlap(a: Range, b: Range): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}
