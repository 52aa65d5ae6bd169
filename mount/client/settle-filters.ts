/** Filters as a client names them, made fit for a bus, which knows neither the client's directory nor its plans. */
import { resolve } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { parseErrorRule } from '../../drivers/filters/error.js';
import type { FilterSpec } from '../../drivers/filters/filter.js';

/**
 * Filters with the paths of their trigger files made absolute.
 * @param cwd is asked only where a path is relative: the working directory may be deleted
 * @param options provesRead: the first byte is going to be read, so a filter that breaks it is a mistake
 * @throws FusetapError USAGE
 */
export function settleFilters(
  filters: readonly FilterSpec[],
  cwd: () => string,
  options: { provesRead: boolean },
): FilterSpec[] {
  const settled = filters.map(({ name, value }) => {
    return name === 'error'
      ? {
          name,
          value: value.replace(
            /@(.+)$/s,
            (_, path: string) => `@${path.startsWith('/') ? resolve(path) : resolve(cwd(), path)}`,
          ),
        }
      : { name, value };
  });
  if (options.provesRead) for (const filter of settled) refuseBrokenStart(filter);
  return settled;
}

function refuseBrokenStart({ name, value }: FilterSpec): void {
  if (name !== 'error') return;
  const { kind, start, trigger } = parseErrorRule(value);
  if (kind !== 'read' || start > 0 || trigger !== null) return;
  throw new FusetapError('USAGE', `filter error=${value} would refuse the attach itself, which reads the first byte`, {
    hint: 'begin at byte 1, error=read:1-1T, or turn it on later with a file: error=read@FILE',
  });
}
