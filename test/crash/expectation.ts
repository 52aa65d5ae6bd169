/**
 * What a disk may contain after a kill or a power cut, from the log of its requests. The unit is the sector: a request
 * that was not acknowledged may have changed any of its sectors, each wholly or not at all.
 *
 *      content at the start ──► requests in their order, by sector ──► the contents that the sector may have
 *
 * A request must be there if it was acknowledged; after a power cut, if it was acknowledged before a flush began that
 * has ended since. Every other request may be there. Of two requests of which neither was acknowledged when the other
 * began, any can be the first.
 */
import type { SparseBytes } from './sparse-bytes.js';

export const SECTOR_BYTES = 512;
/** so many requests at the same time on one sector have too many outcomes; a situation must not do that */
const MOST_AT_ONCE = 10;

export interface Wish {
  readonly kind: 'write' | 'zero';
  readonly offset: number;
  readonly length: number;
  /** what it writes; null for zeros */
  readonly bytes: Buffer | null;
  readonly punch: boolean;
  readonly durable: boolean;
}

/** A point in time: the count of events before it, and the count of calls of the server that were done. */
interface Moment {
  readonly event: number;
  readonly calls: number;
}

export interface Request extends Wish {
  readonly began: Moment;
  acknowledged: Moment | null;
}

interface Flush {
  readonly began: Moment;
  ended: Moment | null;
}

/** How the server ended: killed now, or by a power cut when it had done some calls. */
export type Cut = 'kill' | { readonly calls: number };

export class Expectation {
  readonly size: number;
  readonly #start: SparseBytes;
  readonly #calls: () => number;
  readonly #maybeZeros: boolean;
  readonly #requests: Request[] = [];
  readonly #flushes: Flush[] = [];
  #events = 0;

  /**
   * @param calls tells how many calls the server has done
   * @param maybeZeros after a power cut, bytes of a write that was not flushed may be zeros: the place is durable, and the
   * data is not
   */
  constructor(start: SparseBytes, calls: () => number, { maybeZeros = false } = {}) {
    this.#start = start.copy();
    this.#calls = calls;
    this.#maybeZeros = maybeZeros;
    this.size = start.size;
  }

  begin(wish: Wish): Request {
    const request = { ...wish, began: this.#now(), acknowledged: null };
    this.#requests.push(request);
    return request;
  }

  acknowledge(request: Request): void {
    request.acknowledged = this.#now();
  }

  beginFlush(): Flush {
    const flush = { began: this.#now(), ended: null };
    this.#flushes.push(flush);
    return flush;
  }

  endFlush(flush: Flush): void {
    flush.ended = this.#now();
  }

  /** The requests that were not acknowledged, in the order in which they began. */
  get waiting(): Request[] {
    return this.#requests.filter(({ acknowledged }) => acknowledged === null);
  }

  /** The number of the next event: a read that begins now need not see what is acknowledged later. */
  get event(): number {
    return this.#events;
  }

  /**
   * Compares the sectors of a range that begins with a sector.
   * @param readBegan the event at which the read began; default: it saw all that was acknowledged
   * @returns what is wrong; null if nothing is
   */
  compare(content: Buffer, offset = 0, cut: Cut = 'kill', readBegan: number = Number.POSITIVE_INFINITY): string | null {
    const begun = this.#requests.filter(({ began }) => cut === 'kill' || began.calls <= cut.calls);
    const flushed = cut === 'kill' ? Number.POSITIVE_INFINITY : this.#flushedBefore(cut.calls);
    const mustBe = (request: Request): boolean => {
      const { acknowledged, durable } = request;
      if (acknowledged === null || acknowledged.event >= readBegan) return false;
      if (acknowledged.event < flushed) return true;
      return cut !== 'kill' && durable && acknowledged.calls <= cut.calls;
    };
    const latest = this.#latest(begun, offset, content.length);
    if (content.equals(latest)) return null;
    for (let at = 0; at < content.length; at += SECTOR_BYTES) {
      const found = content.subarray(at, at + SECTOR_BYTES);
      if (found.equals(latest.subarray(at, at + SECTOR_BYTES))) continue;
      const touching = begun.filter((request) => touches(request, offset + at, found.length));
      const maybeZeros = this.#maybeZeros && cut !== 'kill';
      const may = outcomes(this.#startOf(offset + at, found.length), touching, { at: offset + at, mustBe, maybeZeros });
      if (!may.some((each) => each.equals(found))) return describe(offset + at, found, { may, touching, mustBe });
    }
    return null;
  }

  #now(): Moment {
    return { event: this.#events++, calls: this.#calls() };
  }

  /** Requests that were acknowledged before this event are flushed. */
  #flushedBefore(calls: number): number {
    const ended = this.#flushes.filter((flush) => flush.ended !== null && flush.ended.calls <= calls);
    return Math.max(-1, ...ended.map(({ began }) => began.event));
  }

  /** A range as it is if all requests were done in their order. */
  #latest(requests: readonly Request[], offset: number, length: number): Buffer {
    if (scratch.length < length) scratch = Buffer.alloc(length);
    const bytes = scratch.subarray(0, length);
    this.#start.read(bytes, offset);
    for (const request of requests) applyTo(bytes, offset, request);
    return bytes;
  }

  #startOf(offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    this.#start.read(bytes, offset);
    return bytes;
  }
}

/** the comparison of one range at a time needs no new memory */
let scratch = Buffer.alloc(0);

function touches(request: Wish, offset: number, length: number): boolean {
  return request.offset < offset + length && offset < request.offset + request.length;
}

/** Does a request to the bytes of a range that begin at `offset`. */
function applyTo(bytes: Buffer, offset: number, request: Wish): void {
  const from = Math.max(request.offset, offset);
  const to = Math.min(request.offset + request.length, offset + bytes.length);
  if (to <= from) return;
  if (request.bytes === null) bytes.fill(0, from - offset, to - offset);
  else request.bytes.copy(bytes, from - offset, from - request.offset, to - request.offset);
}

interface Sector {
  readonly at: number;
  readonly mustBe: (request: Request) => boolean;
  readonly maybeZeros: boolean;
}

/** What a sector may contain after requests, of which some may not be there. */
function outcomes(start: Buffer, requests: readonly Request[], sector: Sector): Buffer[] {
  let may = [start];
  for (const group of atOnce(requests)) may = distinct(may.flatMap((each) => orders(each, group, sector)));
  return may;
}

/** Groups of requests that were under way at the same time; the groups follow one another. */
function atOnce(requests: readonly Request[]): Request[][] {
  const groups: Request[][] = [];
  let until = Number.NEGATIVE_INFINITY;
  for (const request of requests) {
    const end = request.acknowledged?.event ?? Number.POSITIVE_INFINITY;
    if (request.began.event < until) groups.at(-1)?.push(request);
    else groups.push([request]);
    until = Math.max(until, end);
  }
  return groups;
}

/** All outcomes of a group, for each order that is possible. */
function orders(start: Buffer, group: readonly Request[], sector: Sector): Buffer[] {
  const [only] = group;
  if (only !== undefined && group.length === 1) return mayChange(start, only, sector);
  if (group.length > MOST_AT_ONCE) throw new RangeError(`${group.length} requests at once on one sector`);
  let states = new Map([[0, [start]]]);
  for (let count = 0; count < group.length; count++) {
    const next = new Map<number, Buffer[]>();
    for (const [past, contents] of states) {
      for (const [index, request] of group.entries()) {
        if ((past & (1 << index)) !== 0 || !isFirst(request, group, past)) continue;
        const mask = past | (1 << index);
        const may = contents.flatMap((each) => mayChange(each, request, sector));
        next.set(mask, distinct([...(next.get(mask) ?? []), ...may]));
      }
    }
    states = next;
  }
  return distinct([...states.values()].flat());
}

/** A sector after a request, and as it was if the request may not be there. */
function mayChange(before: Buffer, request: Request, { at, mustBe, maybeZeros }: Sector): Buffer[] {
  const after = Buffer.from(before);
  applyTo(after, at, request);
  if (mustBe(request)) return [after];
  if (!maybeZeros) return [before, after];
  const zeros = Buffer.from(before);
  applyTo(zeros, at, { ...request, bytes: null });
  return [before, after, zeros];
}

/** Whether no other request of the group that is not past was acknowledged before this one began. */
function isFirst(request: Request, group: readonly Request[], past: number): boolean {
  return group.every((other, index) => {
    if (other === request || (past & (1 << index)) !== 0) return true;
    return other.acknowledged === null || other.acknowledged.event > request.began.event;
  });
}

function distinct(contents: readonly Buffer[]): Buffer[] {
  if (contents.length < 2) return [...contents];
  return [...new Map(contents.map((each) => [each.toString('latin1'), each])).values()];
}

interface Seen {
  readonly may: readonly Buffer[];
  readonly touching: readonly Request[];
  readonly mustBe: (request: Request) => boolean;
}

function describe(at: number, found: Buffer, { may, touching, mustBe }: Seen): string {
  const wrong = may[0]?.findIndex((byte, index) => byte !== found[index]) ?? 0;
  const requests = touching.map((request) => {
    const { kind, offset, length, acknowledged } = request;
    const state = mustBe(request) ? 'must be there' : acknowledged === null ? 'not acknowledged' : 'not flushed';
    return `${kind} ${offset}+${length} (${state})`;
  });
  const after = requests.length === 0 ? 'nothing was written there' : `after ${requests.join(', ')}`;
  const hex = (bytes: Buffer | undefined): string => bytes?.subarray(wrong, wrong + 8).toString('hex') ?? '';
  return `byte ${at + wrong}: it has ${hex(found)}, not ${may.map(hex).join(' or ')}; ${after}`;
}
