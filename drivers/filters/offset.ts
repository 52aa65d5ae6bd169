/** offset=BYTES: the disk begins at that byte of the image. */
import { FusetapError } from '../errors.js';
import { parseSize } from '../parse-size.js';
import type { FilterMaker } from './filter.js';
import { narrow } from './narrow.js';

export const offset: FilterMaker = (value) => {
  const start = parseSize(value, 'offset');
  return (next) => {
    if (start < next.size) return narrow(next, start, next.size - start);
    throw new FusetapError('USAGE', `offset ${start}: the disk has only ${next.size} bytes`, {
      hint: `give an offset below ${next.size}`,
    });
  };
};
