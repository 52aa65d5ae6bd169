/**
 * Decides after the death of a server whether to start another one, or to give the bus up.
 *
 * A server that dies while it works on a request is evidence against that request, or against the bus. A server that
 * dies before it has read a request is no evidence: another one is started, after growing pauses, for minutes. Neither is
 * one that somebody has killed: SIGKILL comes from other processes, from the keeper, or from the kernel if memory is short.
 */

/** this many deaths at work with no answer in between, or with the same request under way, end the bus */
export const DEATH_LIMIT = 5;
/** a server that lived longer counts as useful: if it answered nothing, nobody used the bus */
const SOON_MS = 10_000;

/** the first and the longest pause before another server is started */
const FIRST_PAUSE_MS = 10;
const LAST_PAUSE_MS = 5_000;

/** The pause before the n-th try, from 0 on. */
export function pauseBeforeTryMs(tries: number): number {
  return Math.min(FIRST_PAUSE_MS * 2 ** tries, LAST_PAUSE_MS);
}

export interface Death {
  readonly nowMs: number;
  /** how many requests servers have answered so far */
  readonly answered: number;
  /** the requests that the server was working on */
  readonly inFlight: readonly number[];
  /** another process has killed it: see isKilledByOthers */
  readonly wasKilled: boolean;
}

export interface EndOfServer {
  /** in the words of ServerProcess */
  readonly how: string;
  readonly byKeeper: boolean;
  /** it has said why it kills itself, as it does after each error that nobody has caught */
  readonly hasLastWords: boolean;
  /** at its start and now: those of other processes count, too, because the pid is not known; null: not known */
  readonly memoryKills: { readonly before: number | null; readonly after: number | null };
}

/** Whether a process other than the keeper, the server itself and the kernel has ended a server. */
export function isKilledByOthers({ how, byKeeper, hasLastWords, memoryKills }: EndOfServer): boolean {
  const { before, after } = memoryKills;
  return how === 'signal SIGKILL' && !byKeeper && !hasLastWords && before !== null && before === after;
}

export class DeathEvidence {
  readonly #startLimitMs: number;
  /** how many servers in a row died at work and had answered nothing */
  #diedUseless = 0;
  /** how many servers in a row died soon and had not read a request; and since when */
  #diedIdle = 0;
  #diedIdleSinceMs = 0;
  readonly #deathsByRequest = new Map<number, number>();
  #began = { nowMs: 0, answered: 0 };

  /** @param startLimitMs how long servers may go on dying before they read a request */
  constructor(startLimitMs: number) {
    this.#startLimitMs = startLimitMs;
  }

  /** A server begins to read requests. */
  began(at: Pick<Death, 'nowMs' | 'answered'>): void {
    this.#began = at;
  }

  /** That server has died. @returns why to give the bus up; null to start another server */
  died(death: Death): string | null {
    if (death.wasKilled) return this.#reasonInAnswers({ ...death, inFlight: [] });
    return this.#reasonInAnswers(death) ?? this.#reasonInRequests(new Set(death.inFlight));
  }

  /** how long to wait before the next server is started */
  get pauseMs(): number {
    return this.#diedIdle > 1 ? pauseBeforeTryMs(this.#diedIdle) : 0;
  }

  #reasonInAnswers({ nowMs, answered, inFlight }: Death): string | null {
    const wasAtWork = inFlight.length > 0;
    const wasUseful = answered > this.#began.answered || nowMs - this.#began.nowMs > SOON_MS;
    this.#diedUseless = wasUseful || !wasAtWork ? 0 : this.#diedUseless + 1;
    if (this.#diedUseless >= DEATH_LIMIT) return `${DEATH_LIMIT} servers in a row died before they answered a request`;
    if (this.#diedIdle === 0) this.#diedIdleSinceMs = nowMs;
    this.#diedIdle = wasUseful || wasAtWork ? 0 : this.#diedIdle + 1;
    if (this.#diedIdle < DEATH_LIMIT || nowMs - this.#diedIdleSinceMs < this.#startLimitMs) return null;
    return `for ${Math.round((nowMs - this.#diedIdleSinceMs) / 1000)} s every server died before it read a request`;
  }

  #reasonInRequests(inFlight: ReadonlySet<number>): string | null {
    for (const unique of this.#deathsByRequest.keys()) {
      if (!inFlight.has(unique)) this.#deathsByRequest.delete(unique);
    }
    for (const unique of inFlight) {
      const deaths = (this.#deathsByRequest.get(unique) ?? 0) + 1;
      if (deaths >= DEATH_LIMIT) return `${DEATH_LIMIT} servers died while they worked on the same request`;
      this.#deathsByRequest.set(unique, deaths);
    }
    return null;
  }
}
