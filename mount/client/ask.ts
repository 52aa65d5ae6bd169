/**
 * Asks a running bus: its keeper, or its server if the keeper has died. Such a server goes on as an orphan, which can
 * be shown, detached from and stopped.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Answered, callEither, type LineWithoutKeeper, type Sent } from '../control/call.js';
import { isNotRunning } from '../control/http-client.js';
import type { BusInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** a bus whose socket was removed listens again within this time */
const SILENCE_LIMIT_MS = 3_000;
const POLL_MS = 50;

/** Asks the keeper, else the orphaned server. @throws FusetapError NOT_FOUND if neither listens */
export async function askEither<At extends LineWithoutKeeper>(
  place: BusPlace,
  line: At,
  sent: Sent<At>,
): Promise<Answered<At>> {
  const deadline = Date.now() + SILENCE_LIMIT_MS;
  for (;;) {
    try {
      return await callEither(place, line, sent);
    } catch (error) {
      if (!isNotRunning(error)) throw error;
      const { explainSilence } = await import('./troubles/silent-bus.js');
      const silence = await explainSilence(place, error);
      if (silence === null) throw error;
      if (Date.now() > deadline) throw silence;
    }
    await delay(POLL_MS);
  }
}

/** The bus and its vbds. @throws FusetapError NOT_FOUND if it does not run, or is dead */
export function showBus(place: BusPlace, options: { timeoutMs?: number; signal?: AbortSignal } = {}): Promise<BusInfo> {
  return sayIfDead(place, askEither(place, 'GET /bus', options));
}

/** Replaces the error for a bus that does not run, if its mount shows that it died. */
export async function sayIfDead<Answer>(place: BusPlace, asked: Promise<Answer>): Promise<Answer> {
  try {
    return await asked;
  } catch (error) {
    if (!isNotRunning(error)) throw error;
    const { explainDeath } = await import('./troubles/dead-bus.js');
    throw (await explainDeath(place, error)) ?? error;
  }
}
