/**
 * The base of the tests of the coherence rules: the ways to serve a vbd, on each of which a rule is tested, and one or
 * two buses that stay for a whole file.
 */
import { constants } from 'node:fs';
import type { Test } from 'tap';
import { FusetapError } from '../../drivers/errors.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { type Bench, whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus, startBusOn, type Wish } from '../survival/bus.js';
import { Caller, PYTHON } from './caller.js';

/** A driver, and who does its I/O. */
export interface Way {
  readonly label: string;
  readonly driver: 'aio' | 'ram' | 'sync';
  readonly passthrough: 'on' | 'off';
  /** what is written to the vbd is written to the image */
  readonly writesImage: boolean;
}

/** All that can be written; `sync` is never passed through for writing. */
export const WAYS: readonly Way[] = [
  { label: 'aio by threads', driver: 'aio', passthrough: 'off', writesImage: true },
  { label: 'sync by threads', driver: 'sync', passthrough: 'off', writesImage: true },
  { label: 'ram by threads', driver: 'ram', passthrough: 'off', writesImage: false },
  { label: 'aio passed through', driver: 'aio', passthrough: 'on', writesImage: true },
  { label: 'ram passed through', driver: 'ram', passthrough: 'on', writesImage: false },
];

export const BY_THREADS = WAYS.filter(({ passthrough }) => passthrough === 'off');

/** Why this machine cannot run the tests of a rule; false if it can. */
export function whyNotRules(...programs: string[]): string | false {
  return whyNot(...(PYTHON.startsWith('/') ? [] : [PYTHON]), ...programs);
}

export const { O_RDONLY, O_RDWR, O_APPEND, O_DIRECT, O_DSYNC, O_SYNC, O_TRUNC } = constants;

/** Two buses with a client, for all tests of a file. */
export interface Ground {
  readonly bench: Bench;
  readonly a: Bus;
  readonly b: Bus;
  readonly caller: Caller;
}

export async function prepareGround(t: Test): Promise<Ground> {
  const a = await startBus(t, {}, 'a');
  const b = await startBusOn(a.bench, {}, 'b');
  return { bench: a.bench, a, b, caller: Caller.start(t, a.bench) };
}

/** The options of an attach for a way. */
export function asked({ driver, passthrough }: Way): Pick<Wish, 'driver' | 'passthrough'> {
  return { driver, passthrough };
}

/** Attaches, with mode `w` by default; detaches by force at the end of the test. */
export async function attachFor(t: Test, bus: Bus, wish: Wish): Promise<VbdInfo> {
  const vbd = await bus.attach(wish);
  t.teardown(() => bus.detach(vbd.vdev, '?force=1').catch(() => {}));
  return vbd;
}

/** The error of a refused action, or null if it was not refused. */
export async function refusalOf(work: Promise<unknown>): Promise<FusetapError | null> {
  try {
    await work;
    return null;
  } catch (error) {
    if (error instanceof FusetapError) return error;
    throw error;
  }
}
