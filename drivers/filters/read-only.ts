/** read-only: no client can write, whatever the mode of the vbd. A window stays a window. */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import type { FilterMaker } from './filter.js';
import { wrapDisk } from './wrap-disk.js';

export const readOnly: FilterMaker = (value) => {
  if (value !== '') throw new FusetapError('USAGE', `read-only takes no value: ${quoted(value)}`, { hint: 'omit it' });
  return (next) => {
    const window = next.window && { ...next.window, readOnly: true };
    return wrapDisk(next, { window, write: undefined, flush: undefined, zero: undefined });
  };
};
