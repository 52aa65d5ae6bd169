/** From a driver and filters to the disk that is served: where a third-party driver's disk is held to the contract. */
import type { Driver, OpenContext, RawDisk } from './driver.js';
import type { FilterSpec } from './filters/filter.js';
import { makeFilter } from './filters/index.js';
import { checkDisk } from './third-party.js';

/**
 * Opens the driver's disk with filters before it: the first in the list is next to the driver.
 * @throws FusetapError USAGE for a filter that does not fit this disk; UNSUPPORTED for a disk that breaks the contract
 */
export async function openFiltered(
  driver: Driver,
  context: OpenContext,
  specs: readonly FilterSpec[],
): Promise<RawDisk> {
  const filters = specs.map(makeFilter);
  const raw = checkDisk(await driver.open(context), driver.name);
  try {
    return filters.reduce((next, filter) => filter(next), raw);
  } catch (reason) {
    await raw.close();
    throw reason;
  }
}
