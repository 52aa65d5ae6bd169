/**
 * Asks a bus that may not run yet, or may be ending.
 *
 *      ask ──► answer
 *       │ nobody listens, or there is no socket to ask at
 *       ▼
 *      start a keeper ──► ask again
 *       │ another keeper has the bus: it was quicker (ask again), or it is ending (its lock becomes free)
 *       └──► ask again
 */
import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { FusetapError } from '../../drivers/errors.js';
import { call } from '../control/call.js';
import { isConnectionLost, isNotRunning } from '../control/http-client.js';
import type { BusInfo } from '../control/interface.js';
import type { StartOptions } from '../keeper/start.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** how long to wait for a bus that is ending */
const LIMIT_MS = 20_000;

/** How to start a bus; `note` is called with remarks for the user. */
export interface BeginOptions extends StartOptions {
  note?: ((text: string) => void) | undefined;
}

/**
 * Asks; if the bus does not run, starts it and asks again.
 * @param ask called with whether a keeper was started; must throw the same errors as `call`
 * @throws FusetapError BUSY if the keeper died and its server goes on
 */
export async function onRunningBus<Answer>(
  place: BusPlace,
  { note = () => {}, ...options }: BeginOptions,
  ask: (began: boolean) => Promise<Answer>,
): Promise<Answer> {
  const deadline = Date.now() + LIMIT_MS;
  let began = false;
  let lost = false;
  for (let isFirst = true; ; isFirst = false) {
    if (!isFirst || !hasNoSocket(place)) {
      try {
        return await ask(began);
      } catch (error) {
        // only once: a keeper that is ending drops late clients, but one that crashes on the request would crash again
        if (isConnectionLost(error) && !lost) lost = true;
        else if (!(isNotRunning(error) || isEnding(error)) || Date.now() > deadline) throw error;
      }
      await refuseOrphan(place);
    }
    // loaded only now: most buses run
    const { beginBus, isAlreadyRunning } = await import('./begin-bus.js');
    try {
      await beginBus(place, { ...options, whileItLoads: () => loadAhead(options) }, note);
      began = true;
    } catch (error) {
      if (!isAlreadyRunning(error) || Date.now() > deadline) throw error;
      await delay(20);
    }
  }
}

/** Whether neither a keeper nor a server listens. To see that is quicker than to ask them. */
function hasNoSocket({ stateDir }: BusPlace): boolean {
  return ['control.sock', 'server.sock'].every((name) => {
    try {
      lstatSync(join(stateDir, name));
      return false;
    } catch (error) {
      return (error as NodeJS.ErrnoException).code === 'ENOENT';
    }
  });
}

/** Loads what is needed later, while there is nothing to do but wait for the keeper. */
function loadAhead({ lifeline }: StartOptions): void {
  import('node:http').catch(() => {});
  // the process that a bus is for waits for the end of that bus
  if (lifeline !== undefined) import('../../system/libc.js').catch(() => {});
}

/** Whether the keeper answered that it is ending. */
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
  throw new FusetapError('BUSY', `the keeper of bus ${place.name} died: its vbds still work, but none can be added`, {
    hint: `fusetap stop --bus ${place.name}`,
  });
}
