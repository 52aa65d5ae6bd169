/**
 * The questions that a bus which runs can answer, and whom to ask: the keeper, or where that died the server, which
 * serves on as an orphan and can be looked at, detached from and stopped.
 */
import { setTimeout as delay } from 'node:timers/promises';
import { type Answered, callEither, type LineWithoutKeeper, type Sent } from '../control/call.js';
import { isNotRunning } from '../control/http-client.js';
import type { BusInfo } from '../control/interface.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** a bus whose socket was removed listens anew within this time */
const SILENCE_LIMIT_MS = 3_000;
const POLL_MS = 50;

/** Asks the keeper, else the orphaned server. @throws FusetapError NOT_FOUND where neither listens */
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
      const { explainSilence } = await import('./silent-bus.js');
      const silence = await explainSilence(place, error);
      if (silence === null) throw error;
      if (Date.now() > deadline) throw silence;
    }
    await delay(POLL_MS);
  }
}

/** The bus and its vbds. @throws FusetapError NOT_FOUND where it does not run */
export function showBus(place: BusPlace, options: { timeoutMs?: number } = {}): Promise<BusInfo> {
  return askEither(place, 'GET /bus', options);
}
