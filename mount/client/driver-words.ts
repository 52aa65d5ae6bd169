/** Adds what a driver said to the error of an attach. The program that reads the vbd got only an errno. */
import { FusetapError } from '../../drivers/errors.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { LogRecord } from '../runtime/log-line.js';
import { readLog } from './log.js';

/**
 * Call it before the vbd is detached: the log may go with the bus.
 * @returns the error with the last message of the vbd's driver since its attach; the same error if there is none
 */
export function withDriverWords(place: BusPlace, vdev: string, error: unknown): unknown {
  if (!(error instanceof FusetapError)) return error;
  const words = lastWordsIn(place, vdev);
  return words === null ? error : new FusetapError(error.code, `${error.message}: ${words}`, error);
}

function lastWordsIn(place: BusPlace, vdev: string): string | null {
  let records: LogRecord[];
  try {
    records = readLog(place).lines.map(({ record }) => record);
  } catch {
    return null;
  }
  const attached = records.findLastIndex((record) => record.event === 'attached' && record.vdev === vdev);
  for (const record of records.slice(attached + 1).reverse()) {
    if (record.event === 'driver-error' && record.vdev === vdev) return record.message;
    if (record.event === 'server-died' && record.vdev?.split(' ').includes(vdev)) return record.how;
  }
  return null;
}
