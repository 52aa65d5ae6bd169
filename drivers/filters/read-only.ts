/** read-only: no client can write, whatever the mode of the vbd. A window stays a window. */
import type { RawDisk } from '../driver.js';
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import type { FilterMaker } from './filter.js';

export const readOnly: FilterMaker = (value) => {
  if (value !== '') throw new FusetapError('USAGE', `read-only takes no value: ${quoted(value)}`, { hint: 'omit it' });
  return (next) => {
    const disk: RawDisk = {
      size: next.size,
      ...(next.window && { window: { ...next.window, readOnly: true } }),
      read: (buffer, offset) => next.read(buffer, offset),
      close: () => next.close(),
    };
    if (next.extents) disk.extents = async (offset, length) => (await next.extents?.(offset, length)) ?? [];
    return disk;
  };
};
