/** Explains a request that a bus of an older version does not know. */
import { FusetapError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** @returns the error for the user; the same error if it has another cause */
export function explainOlderBus({ name }: BusPlace, error: unknown): unknown {
  const isUnknown = error instanceof FusetapError && error.code === 'NOT_FOUND' && /^a vbd has no /.test(error.message);
  return isUnknown ? olderBus(name) : error;
}

export function olderBus(name: string): FusetapError {
  return new FusetapError('UNSUPPORTED', `bus ${name} was started by an older fusetap, which cannot do this`, {
    hint: 'stop the bus and start it again',
  });
}
