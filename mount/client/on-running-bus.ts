/**
 * Asking a bus that may not run yet, or may be just leaving.
 *
 *      ask ──► answer
 *       │ nobody listens
 *       ▼
 *      start a keeper ──► ask again
 *       │ another keeper has the bus: it was quicker (ask again), or it is leaving (its lock comes free)
 *       └──► ask again
 */
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { call } from '../control/call.js';
import { isConnectionLost, isNotRunning } from '../control/http-client.js';
import type { BusInfo } from '../control/interface.js';
import { isAlreadyRunning, type StartOptions } from '../keeper/start.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { beginBus } from './begin-bus.js';

/** for how long a bus that is leaving is waited for */
const LIMIT_MS = 20_000;

/** How a bus is started, and who is told what the user should know of that. */
export interface BeginOptions extends StartOptions {
  note?: ((text: string) => void) | undefined;
}

/**
 * Asks; where no bus runs, starts it and asks again.
 * @param ask is told whether a keeper was started for it; must throw what `call` throws
 * @throws FusetapError BUSY where the keeper died and its server serves on
 */
export async function onRunningBus<Answer>(
  place: BusPlace,
  { note = () => {}, ...options }: BeginOptions,
  ask: (began: boolean) => Promise<Answer>,
): Promise<Answer> {
  const deadline = Date.now() + LIMIT_MS;
  let began = false;
  let lost = false;
  for (;;) {
    try {
      return await ask(began);
    } catch (error) {
      // once: a keeper that leaves drops who came too late, a keeper that breaks on the question would do it again
      if (isConnectionLost(error) && !lost) lost = true;
      else if (!(isNotRunning(error) || isEnding(error)) || Date.now() > deadline) throw error;
    }
    await refuseOrphan(place);
    try {
      await beginBus(place, options, note);
      began = true;
    } catch (error) {
      if (!isAlreadyRunning(error) || Date.now() > deadline) throw error;
      await delay(20);
    }
  }
}

/** The keeper answered, but has nothing left to do and is about to go. */
function isEnding(error: unknown): boolean {
  return error instanceof FusetapError && error.code === 'BUSY' && error.operation === 'ending';
}

async function refuseOrphan(place: BusPlace): Promise<void> {
  let info: BusInfo;
  try {
    info = await call(place, 'GET /bus', { socket: 'server.sock' });
  } catch {
    return;
  }
  if (info.state !== 'orphaned') return;
  throw new FusetapError('BUSY', `the keeper of bus ${place.name} died: its vbds are served on, nothing can be added`, {
    hint: `fusetap stop --bus ${place.name}`,
  });
}
