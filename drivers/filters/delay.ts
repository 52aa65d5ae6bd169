/** delay=MS: every read, write, flush and zero waits first; requests wait at the same time, not one after the other. */
import { setTimeout as sleep } from 'node:timers/promises';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { beforeRequests } from './before.js';
import type { FilterMaker } from './filter.js';

const LIMIT_MS = 3_600_000;

export const delay: FilterMaker = (value) => {
  const delayMs = /^\d+$/.test(value) ? Number(value) : Number.NaN;
  if (!(delayMs <= LIMIT_MS)) {
    throw new FusetapError('USAGE', `delay ${quoted(value)} is not a number of milliseconds`, {
      hint: `give a whole number from 0 to ${LIMIT_MS}, as delay=20`,
    });
  }
  return (next) => beforeRequests(next, () => sleep(delayMs));
};
