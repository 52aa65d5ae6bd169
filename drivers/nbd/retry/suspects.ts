/**
 * Requests that were in flight when connections ended, again and again. A server may close each connection at one particular
 * request, and all that were in flight with it are sent again. Which of them it is shows when each is sent alone:
 *
 *      lost three times: a suspect
 *          │
 *      on the next connection ──► first others, or a read elsewhere: the server answers ──► nothing is in flight ──► one suspect alone
 *                                                                                      │             │
 *                                                        answered: no suspect any more ◄┘             └► the connection ends
 *                                                                                             five times: it fails with EIO
 *
 * A server that is started again and again answers nothing, or ends whatever is in flight: that convicts nobody.
 */
import { Operation } from '../operation.js';
import { COMMAND } from '../protocol.js';

/** so many connections in a row have ended with it in flight */
export const LOSSES_OF_SUSPECT = 3;
/** so many have ended soon after it was sent alone */
export const LOSSES_ALONE = 5;
const SOON_MS = 5_000;
/** others that may be sent on one connection before the suspects are tried */
const MOST_OTHERS = 256;

/** What is known of an export. */
export interface Blocks {
  readonly size: number;
  readonly minimumBytes: number;
}

export interface Line {
  /** whether nothing is in flight */
  readonly isIdle: boolean;
  /** how many operations it has answered */
  readonly answered: number;
}

export class Suspects {
  readonly #blocks: () => Blocks | null;
  readonly #suspects = new Set<Operation>();
  readonly #lossesAlone = new WeakMap<Operation, number>();
  readonly #losses = new WeakMap<Operation, number>();
  /** it is in flight alone, since then */
  #tried: { readonly operation: Operation; readonly sinceMs: number } | null = null;
  readonly #probes = new WeakSet<Operation>();
  /** since when a suspect waits for its turn */
  #waitsSinceMs: number | null = null;
  /** sent on this connection */
  #others = 0;

  /** @param blocks of the export; null: not known yet */
  constructor(blocks: () => Blocks | null) {
    this.#blocks = blocks;
  }

  /** Whether an operation may only be sent if `next` says so. */
  get isTrying(): boolean {
    return this.#suspects.size > 0;
  }

  /** Takes the operation to send now out of those that wait; undefined: none, until another one is answered. */
  next(waiting: Operation[], line: Line): Operation | undefined {
    if (this.#suspects.size > 0) this.#forgetSettled();
    if (this.#suspects.size === 0) return waiting.shift();
    this.#letOthersGo();
    const isSuspect = (operation: Operation): boolean => this.#suspects.has(operation);
    const hasSuspect = waiting.some(isSuspect);
    const mayPass = this.#tried === null && (this.#others < MOST_OTHERS || !hasSuspect);
    const other = mayPass ? waiting.findIndex((operation) => !isSuspect(operation)) : -1;
    if (other >= 0) {
      this.#others += 1;
      return waiting.splice(other, 1)[0];
    }
    if (!hasSuspect) return undefined;
    this.#waitsSinceMs ??= performance.now();
    if (!line.isIdle || this.#tried !== null) return undefined;
    const probe = line.answered === 0 && this.#others === 0 ? this.#probe() : null;
    return probe ?? this.#try(waiting);
  }

  /** A read of a block that no suspect is about; null: there is none. */
  #probe(): Operation | null {
    const blocks = this.#blocks();
    if (blocks === null) return null;
    const { size, minimumBytes: length } = blocks;
    const last = Math.floor(size / length) - 1;
    const starts = [0, last, Math.floor(last / 2)].map((block) => block * length);
    const offset = starts.find((start) => start >= 0 && !this.#isAbout(start, length));
    if (offset === undefined) return null;
    this.#others += 1;
    const probe = new Operation({ command: COMMAND.read, offset, length, into: Buffer.alloc(length) });
    // an error is an answer, too
    probe.settled.catch(() => {});
    probe.sinceMs = performance.now();
    this.#probes.add(probe);
    return probe;
  }

  #isAbout(start: number, bytes: number): boolean {
    return [...this.#suspects].some(({ offset, length }) => offset < start + bytes && start < offset + length);
  }

  #try(waiting: Operation[]): Operation | undefined {
    const at = waiting.findIndex((operation) => this.#suspects.has(operation));
    const [operation] = at < 0 ? [] : waiting.splice(at, 1);
    if (operation !== undefined) this.#tried = { operation, sinceMs: performance.now() };
    this.#waitsSinceMs = null;
    return operation;
  }

  /** What is slow ends no connection: neither a suspect that is tried, nor others that keep the line from being idle. */
  #letOthersGo(): void {
    const beforeMs = performance.now() - SOON_MS;
    if (this.#tried !== null && this.#tried.sinceMs < beforeMs) {
      this.#suspects.delete(this.#tried.operation);
      this.#losses.delete(this.#tried.operation);
      this.#tried = null;
    }
    if (this.#waitsSinceMs === null || this.#waitsSinceMs >= beforeMs) return;
    this.#others = Math.min(this.#others, 1);
    this.#waitsSinceMs = null;
  }

  /** Whether it is one of ours: it is not sent again. */
  isProbe(operation: Operation): boolean {
    return this.#probes.has(operation);
  }

  /** The operation is not sent after all. */
  putBack(operation: Operation): void {
    if (this.#tried?.operation === operation) this.#tried = null;
  }

  #forgetSettled(): void {
    for (const operation of this.#suspects) if (operation.isSettled) this.#suspects.delete(operation);
    if (this.#tried?.operation.isSettled) this.#tried = null;
  }

  /**
   * A connection has ended.
   * @param isServers whether the server has ended it
   * @returns the operation at which the server closes each connection; null: none is known
   */
  lost(inFlight: readonly Operation[], line: Pick<Line, 'answered'> | null, isServers: boolean): Operation | null {
    this.#forgetSettled();
    const tried = this.#tried;
    this.#tried = null;
    this.#waitsSinceMs = null;
    this.#others = 0;
    if (!isServers) return null;
    for (const operation of inFlight) {
      if (this.#probes.has(operation)) continue;
      const losses = (this.#losses.get(operation) ?? 0) + 1;
      this.#losses.set(operation, losses);
      if (losses >= LOSSES_OF_SUSPECT) this.#suspects.add(operation);
    }
    if (tried === null || (line?.answered ?? 0) === 0 || performance.now() - tried.sinceMs > SOON_MS) return null;
    const { operation } = tried;
    const losses = (this.#lossesAlone.get(operation) ?? 0) + 1;
    this.#lossesAlone.set(operation, losses);
    if (losses < LOSSES_ALONE) return null;
    this.#suspects.delete(operation);
    return operation;
  }
}
