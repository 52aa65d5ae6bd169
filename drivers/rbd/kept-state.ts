/**
 * What outlives a server of a disk: its facts, which the keeper has as data, and a memfd, which says what must be done with
 * the client of a dead server.
 *
 *     0   the head: see kept-head.ts. All acknowledged writes are durable, so its two counters stay equal
 *     16  a HELD word
 *     20  how often a server has taken the disk over: only the last one may change the HELD word
 */
import { mapShared } from '../../system/libc.js';
import type { Json, Kept } from '../driver.js';
import { FusetapError } from '../errors.js';
import { createKept, isKept, type KeptLayout } from '../kept-head.js';

const LAYOUT: KeptLayout = { name: 'fusetap-rbd', bytes: 4096, version: 1 };
const HELD_WORD = 4;
const TAKEOVERS_WORD = 5;

/**
 * What the client has. `nothing`: nothing that it has sent is under way; `asking`: it may have the lock, or not; `lock`: it
 * has the lock, so another owner is a stranger; `open`: it writes without a lock; `fenced`: another client has the image, for
 * good
 */
export const HELD = { nothing: 0, asking: 1, lock: 2, open: 3, fenced: 4 } as const;
export type Held = (typeof HELD)[keyof typeof HELD];

/** What is known of the disk before its image is open. */
export interface DiskFacts {
  readonly size: number;
  readonly id: string;
  /** of Ceph: another snapshot of the same name has another one; null: the disk is no snapshot; not set by older versions */
  readonly snapshotId?: number | null;
  readonly hasExtents: boolean;
}

export interface KeptFacts extends DiskFacts {
  /** of the clients that may have sent something */
  readonly addresses: readonly string[];
}

export class KeptState {
  readonly fd: number;
  readonly #words: Int32Array;
  /** the takeover of this server; null: it is none yet */
  #takeover: number | null = 0;

  private constructor(fd: number) {
    this.fd = fd;
    this.#words = new Int32Array(mapShared(fd, LAYOUT.bytes));
  }

  static create(): KeptState {
    return new KeptState(createKept(LAYOUT));
  }

  /** @throws FusetapError if the memory is not one of this version */
  static adopt(fd: number): KeptState {
    if (!isKept(fd, LAYOUT)) throw damaged();
    const state = new KeptState(fd);
    state.#takeover = null;
    return state;
  }

  /** From now on this server writes the HELD word. The one before may still live, and is not listened to any more. */
  takeOver(): void {
    this.#takeover = (this.#words[TAKEOVERS_WORD] ?? 0) + 1;
    this.#words[TAKEOVERS_WORD] = this.#takeover;
  }

  get held(): Held {
    return (this.#words[HELD_WORD] ?? HELD.asking) as Held;
  }

  /** Ignored if a later server has taken over, or the disk is fenced. */
  set held(held: Held) {
    if (this.held === HELD.fenced || this.#takeover !== this.#words[TAKEOVERS_WORD]) return;
    this.#words[HELD_WORD] = held;
  }
}

/** What an earlier server has kept. @throws FusetapError if it is damaged */
export function earlierOf({ facts, fds: [fd] }: Kept): { readonly facts: KeptFacts; readonly fd: number } {
  if (fd === undefined || !areFacts(facts)) throw damaged();
  return { facts, fd };
}

function areFacts(value: Json): value is KeptFacts & Json {
  const { size, id, snapshotId = null, hasExtents, addresses } = (value ?? {}) as Partial<KeptFacts>;
  const areTexts = Array.isArray(addresses) && addresses.every((each) => typeof each === 'string');
  const areIds = typeof id === 'string' && (snapshotId === null || Number.isSafeInteger(snapshotId));
  return Number.isSafeInteger(size) && areIds && typeof hasExtents === 'boolean' && areTexts;
}

function damaged(): FusetapError {
  return new FusetapError('FAILED', 'what an earlier server has kept is damaged');
}
