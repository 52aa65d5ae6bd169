/** The filters by name: one line each. */
import { FusetapError } from '../errors.js';
import { quoted } from '../quote.js';
import { delay } from './delay.js';
import { error } from './error.js';
import type { Filter, FilterMaker, FilterSpec } from './filter.js';
import { offset } from './offset.js';
import { readOnly } from './read-only.js';
import { sizelimit } from './sizelimit.js';

const FILTERS: Readonly<Record<string, FilterMaker>> = { delay, error, offset, 'read-only': readOnly, sizelimit };

/** In alphabetical order. */
export const filterNames: readonly string[] = Object.keys(FILTERS);

/** @throws FusetapError USAGE for an unknown name, or a value that is wrong for any disk */
export function makeFilter({ name, value }: FilterSpec): Filter {
  const make = Object.hasOwn(FILTERS, name) ? FILTERS[name] : undefined;
  if (make !== undefined) return make(value);
  throw new FusetapError('USAGE', `no such filter: ${quoted(name)}`, { hint: `filters are ${filterNames.join(', ')}` });
}
