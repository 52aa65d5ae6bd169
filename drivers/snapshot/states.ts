/**
 * The states of the granules of a snapshot. They are read from the memory each time, because they may be larger than what
 * a process should keep: 4 GiB for a disk of 16 TiB. Holes are BASE, and are skipped.
 */
import { SLICE_GRANULES } from '../map/table.js';
import { GRANULE_BYTES, type Layout, PAGE } from './layout.js';
import type { MemoryCalls } from './memory-calls.js';

/** The bytes of the base; where the slice is ZEROED, zeros. */
export const BASE = 0;
/** The bytes in the memory. */
export const PRIVATE = 1;
/** Zeros, whatever the memory has there. */
export const ZEROED = 2;
export type GranuleChange = typeof PRIVATE | typeof ZEROED;

/** Granules of one state that follow one another. */
export interface Run {
  readonly state: number;
  readonly first: number;
  readonly count: number;
}

export class States {
  readonly #layout: Layout;
  readonly #calls: MemoryCalls;
  readonly #slice = new Uint8Array(SLICE_GRANULES);

  constructor(layout: Layout, calls: MemoryCalls) {
    this.#layout = layout;
    this.#calls = calls;
  }

  /** The states of granules. */
  read(first: number, count: number): Uint8Array {
    const states = new Uint8Array(count);
    this.#readInto(states, first);
    return states;
  }

  #readInto(states: Uint8Array, first: number): void {
    const { granulesAt, slicesAt } = this.#layout;
    this.#calls.look(states, granulesAt + first);
    const firstSlice = Math.floor(first / SLICE_GRANULES);
    const slices = new Uint8Array(Math.floor((first + states.length - 1) / SLICE_GRANULES) - firstSlice + 1);
    this.#calls.look(slices, slicesAt + firstSlice);
    for (const [i, byte] of slices.entries()) {
      if (byte !== ZEROED) continue;
      const from = (firstSlice + i) * SLICE_GRANULES - first;
      const to = Math.min(states.length, from + SLICE_GRANULES);
      for (let at = Math.max(0, from); at < to; at++) if (states[at] === BASE) states[at] = ZEROED;
    }
  }

  /** The states of the granules of a slice, until the next call. */
  ofSlice(slice: number): Uint8Array {
    const first = slice * SLICE_GRANULES;
    const states = this.#slice.subarray(0, Math.min(SLICE_GRANULES, this.#layout.granules - first));
    this.#readInto(states, first);
    return states;
  }

  /**
   * The run that begins at a granule. It may end before the state changes, so that a look is short.
   * @param end it ends there at the latest; above `first`
   */
  runAt(first: number, end: number): Run {
    const { granulesAt, slicesAt, granules } = this.#layout;
    const noted = this.#calls.nextData(granulesAt + first) - granulesAt;
    if (noted === first) {
      const states = this.read(first, Math.min(end, pageEnd(first), granules) - first);
      return { state: states[0] as number, first, count: sameAtStart(states) };
    }
    // no granule in between has a state of its own
    const to = Math.min(end, noted, granules);
    const slice = Math.floor(first / SLICE_GRANULES);
    const zeroed = this.#calls.nextData(slicesAt + slice) - slicesAt;
    if (zeroed > slice) return { state: BASE, first, count: Math.min(to, zeroed * SLICE_GRANULES) - first };
    const slices = new Uint8Array(Math.min(pageEnd(slice), Math.ceil(to / SLICE_GRANULES)) - slice);
    this.#calls.look(slices, slicesAt + slice);
    const last = slice + sameAtStart(slices);
    return { state: slices[0] as number, first, count: Math.min(to, last * SLICE_GRANULES) - first };
  }

  /** Sets the state of granules, in one step. */
  write(first: number, count: number, state: GranuleChange): void {
    this.#calls.note(new Uint8Array(count).fill(state), this.#layout.granulesAt + first);
  }

  /**
   * Makes granules ZEROED, at once; those that are PRIVATE and in a whole slice become it only by `zeroPrivate`, which
   * must follow. A server may be killed between two steps: each granule has its old state then, or the new one.
   */
  zero(first: number, count: number): void {
    const { head, slices, tail } = partsOf(first, count, this.#layout);
    for (const part of [head, tail]) if (part.count > 0) this.write(part.first, part.count, ZEROED);
    if (slices.count === 0) return;
    this.#calls.note(new Uint8Array(slices.count).fill(ZEROED), this.#layout.slicesAt + slices.first);
  }

  /** Frees the states of granules in whole slices: they become BASE, which means zeros there by now. */
  async zeroPrivate(first: number, count: number): Promise<void> {
    const { granulesAt } = this.#layout;
    const { slices } = partsOf(first, count, this.#layout);
    if (slices.count === 0) return;
    const place = granulesAt + slices.first * SLICE_GRANULES;
    const length = Math.min(slices.count * SLICE_GRANULES, first + count - slices.first * SLICE_GRANULES);
    if (this.#calls.nextData(place) < place + length) await this.#calls.punch(place, length);
  }

  /** The pages of states that setting granules fills, and that are holes now: their places. */
  holesOfWrite(first: number, count: number): number[] {
    return this.#holes(this.#layout.granulesAt + first, count);
  }

  /** As holesOfWrite, for `zero`. */
  holesOfZero(first: number, count: number): number[] {
    const { head, slices, tail } = partsOf(first, count, this.#layout);
    const pages = [
      ...this.holesOfWrite(head.first, head.count),
      ...this.holesOfWrite(tail.first, tail.count),
      ...this.#holes(this.#layout.slicesAt + slices.first, slices.count),
    ];
    return [...new Set(pages)];
  }

  #holes(place: number, length: number): number[] {
    const holes: number[] = [];
    for (let page = place - (place % PAGE); page < place + length && length > 0; page += PAGE) {
      if (this.#calls.nextData(page) !== page) holes.push(page);
    }
    return holes;
  }

  /** Slice states that are not in holes, page by page, from the slice `from` on and before the slice `to`. */
  *notedSlices(from: number, to: number): Generator<{ first: number; bytes: Uint8Array }> {
    const { slicesAt } = this.#layout;
    for (let slice = from; slice < to; ) {
      const first = this.#calls.nextData(slicesAt + slice) - slicesAt;
      if (first >= to) return;
      const bytes = new Uint8Array(Math.min(to, pageEnd(first)) - first);
      this.#calls.look(bytes, slicesAt + first);
      yield { first, bytes };
      slice = first + bytes.length;
    }
  }

  /** The slices whose granules may have states of their own, and these states. */
  *notedGranules(): Generator<{ slice: number; states: Uint8Array }> {
    const { granules, granulesAt } = this.#layout;
    for (let granule = 0; granule < granules; ) {
      const first = this.#calls.nextData(granulesAt + granule) - granulesAt;
      if (first >= granules) return;
      granule = Math.min(granules, pageEnd(first));
      const page = this.read(first, granule - first);
      for (let at = 0; at < page.length; at += SLICE_GRANULES) {
        yield { slice: (first + at) / SLICE_GRANULES, states: page.subarray(at, at + SLICE_GRANULES) };
      }
    }
  }
}

/** Whether a range of the memory is a hole. */
export function isHole(calls: MemoryCalls, first: number, count: number): boolean {
  return calls.nextData(first * GRANULE_BYTES) >= (first + count) * GRANULE_BYTES;
}

interface Part {
  readonly first: number;
  readonly count: number;
}

/** Whole slices of a range, and the granules before and after them. */
function partsOf(first: number, count: number, { granules }: Layout): { head: Part; slices: Part; tail: Part } {
  const end = first + count;
  const from = Math.ceil(first / SLICE_GRANULES);
  const to = end === granules ? Math.ceil(end / SLICE_GRANULES) : Math.floor(end / SLICE_GRANULES);
  if (to <= from) return { head: { first, count }, slices: { first: from, count: 0 }, tail: { first: end, count: 0 } };
  const tail = Math.min(end, to * SLICE_GRANULES);
  return {
    head: { first, count: from * SLICE_GRANULES - first },
    slices: { first: from, count: to - from },
    tail: { first: tail, count: end - tail },
  };
}

/** The end of a page of states: the number after its last state. */
function pageEnd(index: number): number {
  return index - (index % PAGE) + PAGE;
}

/** How many bytes are equal to the first. */
function sameAtStart(bytes: Uint8Array): number {
  if (areSame(bytes)) return bytes.length;
  let end = 1;
  while (bytes[end] === bytes[0]) end++;
  return end;
}

/** Whether all bytes are equal: whether they are what they are when moved by one. */
export function areSame(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(1), bytes.subarray(0, bytes.length - 1)) === 0;
}
