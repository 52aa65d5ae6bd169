/** Makes the disk that is served from a driver and filters. The driver's disk is checked against the contract here. */
import type { Driver, OpenContext, RawDisk } from './driver.js';
import type { FilterSpec } from './filters/filter.js';
import { makeFilter } from './filters/index.js';
import { type TellError, tellErrors } from './tell-errors.js';
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
