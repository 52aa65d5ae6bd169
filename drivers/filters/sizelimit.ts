/** sizelimit=BYTES: the disk has that many bytes of the image. */
import { FusetapError } from '../errors.js';
import { parseSize } from '../parse-size.js';
import type { FilterMaker } from './filter.js';
import { narrow } from './narrow.js';

export const sizelimit: FilterMaker = (value) => {
  const size = parseSize(value, 'sizelimit');
  if (size === 0) throw new FusetapError('USAGE', 'sizelimit 0: a disk has at least 1 byte', { hint: 'omit it' });
  return (next) => {
    if (size <= next.size) return narrow(next, 0, size);
    throw new FusetapError('USAGE', `sizelimit ${size}: the disk has only ${next.size} bytes`, {
      hint: `give at most ${next.size} (after the offset)`,
    });
  };
};
