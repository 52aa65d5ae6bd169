/**
 * Makes the disk that is served from a driver and filters. The driver's disk is checked against the contract here, and
 * its errors can be told: a client of the disk gets only an errno, so their messages would be lost.
 */
import { constants } from 'node:os';
import type { Driver, OpenContext, RawDisk } from './driver.js';
import { errnoOf } from './errors.js';
import type { FilterSpec } from './filters/filter.js';
import { makeFilter } from './filters/index.js';
import { wrapDisk } from './filters/wrap-disk.js';
import { checkDisk } from './third-party.js';

/**
 * Opens the driver's disk and puts the filters in front of it: the first in the list is next to the driver.
 * @param tell called with each error of the driver's disk; errors that filters make are not told
 * @throws FusetapError USAGE for a filter that does not fit this disk; UNSUPPORTED for a disk that breaks the contract
 */
export async function openFiltered(
  driver: Driver,
  context: OpenContext,
  specs: readonly FilterSpec[],
  tell?: TellError,
): Promise<RawDisk> {
  const filters = specs.map(makeFilter);
  const opened = checkDisk(await driver.open(context), driver.name);
  const raw = tell === undefined ? opened : tellErrors(opened, tell);
  try {
    return filters.reduce((next, filter) => filter(next), raw);
  } catch (reason) {
    await raw.close();
    throw reason;
  }
}

const { EOPNOTSUPP, ENOSYS } = constants.errno;

/** Called with the name of the call that failed, and its error. */
export type TellError = (operation: string, error: unknown) => void;

/**
 * The same disk, but `tell` is called with each error before the caller gets it. Errors that only say that the disk
 * cannot zero or describe itself are not told: disk.ts does it in another way.
 */
export function tellErrors(raw: RawDisk, tell: TellError): RawDisk {
  const told = async <Result>(operation: string, call: () => Promise<Result>): Promise<Result> => {
    try {
      return await call();
    } catch (error) {
      if (![EOPNOTSUPP, ENOSYS].includes(errnoOf(error))) tell(operation, error);
      throw error;
    }
  };
  const { write, flush, zero, extents } = raw;
  return wrapDisk(raw, {
    read: (buffer, offset) => told('read', async () => raw.read(buffer, offset)),
    write: write && ((buffer, offset, options) => told('write', async () => raw.write?.(buffer, offset, options))),
    flush: flush && (() => told('flush', async () => raw.flush?.())),
    zero: zero && ((offset, length, options) => told('zero', async () => raw.zero?.(offset, length, options))),
    extents: extents && ((offset, length) => told('extents', async () => (await raw.extents?.(offset, length)) ?? [])),
    close: () => told('close', async () => raw.close()),
  });
}
