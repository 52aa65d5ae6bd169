/** Disks for the suite from a filter over another factory's disks. */
import type { RawDisk } from '../../../drivers/driver.js';
import type { Filter } from '../../../drivers/filters/filter.js';
import ram from '../../../drivers/ram/index.js';
import { driverFactory } from '../../conformance/driver-factory.js';
import type { DiskFactory } from '../../conformance/suite.js';

/** A disk that is served on the event loop although it is a window. */
export function withoutSegments(raw: RawDisk): RawDisk {
  const { segments: _, ...rest } = raw;
  return rest;
}

/** The filter over ram. */
export function overRam(filter: Filter): DiskFactory {
  return driverFactory(ram, { wrap: filter });
}

export const RAM_ABILITIES = { maxSizeBytes: 2 ** 42, holes: true, shrink: false };
