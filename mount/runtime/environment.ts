/** Reads and checks environment variables. The error for a wrong one has its name, its value, and the valid values. */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';

/** The maximum of Node's timers. */
const MOST_MS = 2 ** 31 - 1;

/**
 * A variable with a number of milliseconds. Unset and empty mean the same.
 * @throws FusetapError USAGE
 */
export function readMilliseconds(
  name: string,
  fallbackMs: number,
  env: Readonly<Record<string, string | undefined>> = process.env,
): number {
  const text = env[name];
  if (text === undefined || text === '') return fallbackMs;
  const value = /^\d+(\.\d+)?$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= MOST_MS) return value;
  throw new FusetapError('USAGE', `${name} is not a number of milliseconds: ${quoted(text)}`, {
    hint: `set it to 1 or more, or unset it: the default is ${fallbackMs}`,
  });
}
