/** read-only: no client can write, whatever the mode of the vbd. Segments stay segments, and a map stays a map. */
import type { RawDisk } from '../driver.js';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import type { FilterMaker } from './filter.js';
import { wrapDisk } from './wrap-disk.js';

export const readOnly: FilterMaker = (value) => {
  if (value !== '') throw new FusetapError('USAGE', `read-only takes no value: ${quoted(value)}`, { hint: 'omit it' });
  return withoutWrites;
};

/** The same disk without the calls that write. */
export function withoutWrites(next: RawDisk): RawDisk {
  return wrapDisk(next, {
    segments: next.segments?.map((segment) => ({ ...segment, readOnly: true })),
    map: next.map && { ...next.map, readOnly: true },
    ...{ write: undefined, zero: undefined, flush: undefined, growth: undefined, commit: undefined },
  });
}
