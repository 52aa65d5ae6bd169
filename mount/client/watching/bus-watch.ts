/**
 * Watches buses: each call of `look` gives the rates since the call before.
 *
 *      look ──► the names in the runtime directory ──► each bus is asked (GET /counters), all at the same time
 *                                                        ├── answers within the limit    its rates
 *                                                        └── does not                    `not-answering`; the answer is
 *                                                                                        used when it comes
 *
 * A bus that does not answer delays the first look by the limit, and later ones not at all: they only see whether its answer
 * has come. None is asked again before it has answered. Buses may begin and end between two calls.
 */
import { setMaxListeners } from 'node:events';
import { FusetapError } from '../../../drivers/errors.js';
import { within } from '../../../system/within.js';
import type { BusCounters } from '../../control/interface.js';
import { type BusPlace, listBusNames } from '../../runtime/bus-place.js';
import { askEither } from '../ask.js';
import { type BusTrouble, type Look, lookAt } from '../troubles/look-at.js';
import { countersOfOlder, isOlder } from './older-bus.js';
import { type BusRates, ratesBetween } from './rates.js';

/** a bus that takes longer is asked again */
const GIVE_UP_MS = 30_000;

export interface WatchOptions {
  /** the only bus to watch; default: all of the runtime directory, as they come and go */
  readonly only?: BusPlace | undefined;
  /** how long a bus may take to answer before it is shown as not answering; default: 1 s */
  readonly limitMs?: number | undefined;
}

/** What is known of a bus. */
interface Known {
  /** as of the last look */
  counters: BusCounters | null;
  /** its last answer, in full */
  answer: BusCounters | null;
  asking: Asking | null;
}

interface Asking {
  readonly look: Promise<Look<BusCounters>>;
  isSettled: boolean;
  /** somebody has waited for it in vain */
  isLate: boolean;
}

export class BusWatch {
  readonly #runtimeDir: string;
  readonly #only: BusPlace | undefined;
  readonly #limitMs: number;
  readonly #ending = new AbortController();
  readonly #known = new Map<string, Known>();

  constructor(runtimeDir: string, { only, limitMs = 1_000 }: WatchOptions = {}) {
    this.#runtimeDir = runtimeDir;
    this.#only = only;
    this.#limitMs = limitMs;
    // one for each bus
    setMaxListeners(0, this.#ending.signal);
  }

  /** Gives up what is asked: a bus that hangs must not keep the process alive. The watch cannot be used any more. */
  close(): void {
    this.#ending.abort();
  }

  /**
   * The rates of all buses since the last call, ordered by name. A bus that is counted for the first time has an interval
   * of 0 seconds.
   */
  async look(): Promise<BusRates[]> {
    const found = await this.#each(async (name, known) => {
      const { info, trouble } = await this.#answerOf(name, known);
      if (trouble !== undefined) return troubleRates(trouble, known.counters);
      const rates = info === undefined ? null : ratesBetween(known.counters, info);
      known.counters = info ?? null;
      return rates;
    });
    return found.filter((rates) => rates !== null);
  }

  /** What all buses have counted now, ordered by name, and the troubles of those that do not answer. */
  async count(): Promise<Look<BusCounters>[]> {
    return await this.#each(async (name, known) => {
      // an answer that came after an earlier call is as old as that call
      if (known.asking?.isSettled) known.asking = null;
      return known.asking?.isLate ? this.#silence(name, known) : this.#answerOf(name, known);
    });
  }

  async #each<Result>(act: (name: string, known: Known) => Promise<Result>): Promise<Result[]> {
    const names = this.#only === undefined ? listBusNames(this.#runtimeDir) : [this.#only.name];
    for (const name of this.#known.keys()) if (!names.includes(name)) this.#known.delete(name);
    return await Promise.all(
      names.map(async (name) => {
        const known = this.#known.get(name) ?? { counters: null, answer: null, asking: null };
        this.#known.set(name, known);
        return await act(name, known);
      }),
    );
  }

  async #answerOf(bus: string, known: Known): Promise<Look<BusCounters>> {
    known.asking ??= this.#ask(bus, known);
    const { asking } = known;
    const forget = (): void => {
      if (known.asking === asking) known.asking = null;
    };
    const look = await within(asking.look, asking.isLate ? 0 : this.#limitMs, null).catch((error: unknown) => {
      forget();
      throw error;
    });
    if (look !== null) {
      forget();
      return look;
    }
    asking.isLate = true;
    return this.#silence(bus, known);
  }

  #silence(bus: string, known: Known): Look<BusCounters> {
    const error = new FusetapError('FAILED', `bus ${bus} has not answered within ${this.#limitMs / 1000} s`);
    const path = known.counters?.path ?? this.#only?.path ?? null;
    return { trouble: { bus, path, state: 'not-answering', error } };
  }

  #ask(name: string, known: Known): Asking {
    const look = lookAt(name, this.#runtimeDir, async (place) => {
      const before = known.answer;
      // another process may answer next time, to which the mark says nothing
      known.answer = null;
      known.answer = await askCounters(place, before, this.#ending.signal);
      return known.answer;
    });
    const asking = { look, isSettled: false, isLate: false };
    const settle = (): void => {
      asking.isSettled = true;
    };
    // if it fails after the limit, the next look finds that
    look.then(settle, settle);
    return asking;
  }
}

/** @param before its last answer: vbds of which nothing has changed since then are the same objects as there */
async function askCounters(place: BusPlace, before: BusCounters | null, signal: AbortSignal): Promise<BusCounters> {
  const options = { timeoutMs: GIVE_UP_MS, signal };
  try {
    const query = before?.mark === undefined ? {} : { since: before.mark };
    return complete(await askEither(place, 'GET /counters', { query, ...options }), before);
  } catch (error) {
    if (!isOlder(error)) throw error;
    return await countersOfOlder(place, options);
  }
}

/** Adds the vbds that an answer leaves out, because they are as before. */
function complete(answer: BusCounters, before: BusCounters | null): BusCounters {
  const { ids, ...told } = answer;
  if (ids === undefined) return answer;
  const known = new Map([...(before?.vbds ?? []), ...told.vbds].map((vbd) => [vbd.id, vbd]));
  return { ...told, vbds: ids.flatMap((id) => known.get(id) ?? []) };
}

/** A bus that has not told its counters: what it had told before, without rates. */
function troubleRates({ bus, path, state, error }: BusTrouble, known: BusCounters | null): BusRates {
  const last = known === null ? null : ratesBetween(null, known);
  return {
    ...{ bus, path, state, trouble: error.message, seconds: 0, newRestarts: 0 },
    restarts: last?.restarts ?? null,
    ...{ keeper: null, server: null, waiting: null },
    vbds: last?.vbds ?? [],
  };
}
