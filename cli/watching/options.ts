/** The options of commands that show rates, and the watch that they ask for. */
import { InvalidArgumentError } from 'commander';
import { FusetapError } from '../../drivers/errors.js';
import type { BusWatch } from '../../mount/client/watching/bus-watch.js';
import { callersRuntimeDir, chosenBus, type SharedOptions } from '../options.js';

/** Parses an interval in seconds, for commander. */
export function parseInterval(word: string): number {
  const seconds = Number(word);
  if (word.trim() !== '' && seconds >= 0.1 && seconds <= 86_400) return seconds;
  throw new InvalidArgumentError('give seconds, from 0.1 to 86400, for example 1 or 0.5');
}

/** Parses how many times to do something, for commander. */
export function parseCount(word: string): number {
  const count = Number(word);
  if (/^\d+$/.test(word) && Number.isSafeInteger(count) && count > 0) return count;
  throw new InvalidArgumentError('give a number, 1 or more');
}

/** Watches the bus that was chosen, else all. @param intervalSeconds between two looks, if there are several */
export async function chosenWatch(options: SharedOptions, intervalSeconds?: number): Promise<BusWatch> {
  const only = options.bus === undefined ? undefined : await chosenBus(options);
  const limitMs = intervalSeconds === undefined ? undefined : Math.min(2_000, Math.max(200, intervalSeconds * 1_000));
  // plain `fusetap stats` needs only the options
  const { BusWatch: Watch } = await import('../../mount/client/watching/bus-watch.js');
  return new Watch(callersRuntimeDir(), { only, limitMs });
}

/** The error for a bus that was named, and does not run. */
export function notRunning(bus: string): FusetapError {
  return new FusetapError('NOT_FOUND', `bus ${bus} does not run`, { hint: 'fusetap ls lists the running buses' });
}

/** Where to listen. */
export interface ListenPlace {
  readonly host: string;
  readonly port: number;
}

/** Parses ADDRESS:PORT, [IPV6]:PORT, :PORT or PORT, for commander. A port alone is on this machine only. */
export function parseListenPlace(word: string): ListenPlace {
  const [, bracketed, plain, digits] = /^(?:\[([^\]]+)\]:|([^:[\]]+):)?(\d{1,5})$/.exec(word) ?? [];
  const port = Number(digits);
  if (digits === undefined || port > 65_535) {
    throw new InvalidArgumentError('give ADDRESS:PORT or PORT, for example 127.0.0.1:9101, [::1]:9101 or 9101');
  }
  return { host: bracketed ?? plain ?? '127.0.0.1', port };
}
