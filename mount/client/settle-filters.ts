/** Prepares the filters of a client for a bus, which does not know the client's directory or purpose. */
import { resolve } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { parseErrorRule } from '../../drivers/filters/error.js';
import type { FilterSpec } from '../../drivers/filters/filter.js';
import { sizeForBus } from '../../drivers/parse-size.js';

/**
 * Makes the paths of trigger files absolute, and sizes readable for a bus of any version.
 * @param cwd called only if a path is relative, because the working directory may be deleted
 * @param options provesRead: the attach will read the first byte, so a filter that makes this fail is an error
 * @throws FusetapError USAGE
 */
export function settleFilters(
  filters: readonly FilterSpec[],
  cwd: () => string,
  options: { provesRead: boolean },
): FilterSpec[] {
  const settled = filters.map(({ name, value }) => {
    if (name === 'offset' || name === 'sizelimit') return { name, value: sizeForBus(value, name) };
    return { name, value: name === 'error' ? settleErrorRule(value, cwd) : value };
  });
  if (options.provesRead) for (const filter of settled) refuseBrokenStart(filter);
  return settled;
}

const RANGE = /^([a-z]+):([^-@]*)-([^@]*)/;

function settleErrorRule(value: string, cwd: () => string): string {
  return value
    .replace(RANGE, (_, kind: string, from: string, to: string) => {
      return `${kind}:${sizeForBus(from, 'error')}-${sizeForBus(to, 'error')}`;
    })
    .replace(/@(.+)$/s, (_, path: string) => `@${path.startsWith('/') ? resolve(path) : resolve(cwd(), path)}`);
}

function refuseBrokenStart({ name, value }: FilterSpec): void {
  if (name !== 'error') return;
  const { kind, start, trigger } = parseErrorRule(value);
  if (kind !== 'read' || start > 0 || trigger !== null) return;
  throw new FusetapError('USAGE', `filter error=${value} would refuse the attach itself, which reads the first byte`, {
    hint: 'begin at byte 1 with error=read:1-1T, or turn it on later with a file: error=read@FILE',
  });
}
