/** Variables of the environment, checked where they are read: a wrong one is said by name, with its value and what is right. */
import { FusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';

/** A timer of Node takes no more. */
const MOST_MS = 2 ** 31 - 1;

/**
 * A variable that is a number of milliseconds; not set and empty are the same.
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
  throw new FusetapError('USAGE', `${name} is no number of milliseconds: ${quoted(text)}`, {
    hint: `set it to 1 or more, or unset it: without it ${fallbackMs} is taken`,
  });
}
