/**
 * The drivers that come with fusetap: the one list of them. A new driver is its folder and its line here; the registry,
 * specs, help, completion, the control interface and tap-ctl ask this file.
 *
 * Cheap to import, for the command line too: the code of a driver is loaded when `load` is called.
 */
import type { Driver } from './driver.js';

/** What is to be known of a driver before its code is loaded. */
export interface DriverFacts {
  load(): Promise<{ readonly default: Driver }>;
  /** `aio:` alone means nothing, `ram:` may join a memory by its name */
  readonly needsImage: boolean;
  /** its number in tapdisk, which has none for drivers that it did not have */
  readonly tapdiskType?: number;
  /** for help and completion */
  readonly summary: string;
}

/** In alphabetical order. */
const DRIVERS = {
  aio: { load: () => import('./aio/index.js'), needsImage: true, tapdiskType: 0, summary: 'the image itself' },
  ram: { load: () => import('./ram/index.js'), needsImage: false, tapdiskType: 5, summary: 'a copy in memory, shared' },
  sync: { load: () => import('./sync/index.js'), needsImage: true, tapdiskType: 1, summary: 'as aio, writes durable' },
} satisfies Record<string, DriverFacts>;

export type DriverName = keyof typeof DRIVERS;

export const driverNames: readonly string[] = Object.keys(DRIVERS);

/** A line for each driver, for help and completion. */
export const driverSummaries: readonly (readonly [name: string, summary: string])[] = Object.entries(DRIVERS).map(
  ([name, { summary }]) => [name, summary],
);

/** The driver of a disk for which none is named. */
export const DEFAULT_DRIVER: DriverName = 'aio';

/** What is known of a driver by that name; undefined for a name that is none of fusetap's own. */
export function factsOf(name: string): DriverFacts | undefined {
  // hasOwn: "constructor" is no driver
  return Object.hasOwn(DRIVERS, name) ? DRIVERS[name as DriverName] : undefined;
}
