/** Time limits that may be set in the environment, for tests and for slow machines. */
import { logEvent } from './log.js';

/** Milliseconds from a variable; one that is no whole number above 0 is not used, and said so. */
export function limitFromEnvironment(name: string, defaultMs: number): number {
  const text = process.env[name];
  if (text === undefined) return defaultMs;
  const limitMs = Number(text);
  if (Number.isSafeInteger(limitMs) && limitMs > 0) return limitMs;
  logEvent({ event: 'note', text: `${name} is not a number of milliseconds: ${text}; it is ${defaultMs}` });
  return defaultMs;
}
