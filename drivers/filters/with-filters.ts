/**
 * Makes the disk that is served from an opened disk and filters. The errors of the opened disk can be told: a client
 * gets only an errno, so their messages would be lost.
 */
import { constants } from 'node:os';
import type { RawDisk } from '../driver.js';
import { errnoOf } from '../errors.js';
import type { FilterSpec } from './filter.js';
import { makeFilter } from './index.js';
import { wrapDisk } from './wrap-disk.js';

/**
 * Puts the filters in front of a disk: the first in the list is next to the disk. If that fails, closes the disk.
 * @param tell called with each error of the disk; errors that filters make are not told
 * @throws FusetapError USAGE for a filter that does not fit this disk
 */
export async function withFilters(opened: RawDisk, specs: readonly FilterSpec[], tell?: TellError): Promise<RawDisk> {
  const raw = tell === undefined ? opened : tellErrors(opened, tell);
  try {
    return specs.map(makeFilter).reduce((next, filter) => filter(next), raw);
  } catch (reason) {
    await raw.close();
    throw reason;
  }
}

const { EOPNOTSUPP, ENOSYS } = constants.errno;

/** Called with the name of the call that failed, and its error. */
export type TellError = (operation: string, error: unknown) => void;

/**
 * The same disk, but `tell` is called with each error before the caller gets it. Errors that only say that the disk
 * cannot zero or describe itself are not told: disk.ts does it in another way.
 */
export function tellErrors(raw: RawDisk, tell: TellError): RawDisk {
  const told = async <Result>(operation: string, call: () => Promise<Result>): Promise<Result> => {
    try {
      return await call();
    } catch (error) {
      if (![EOPNOTSUPP, ENOSYS].includes(errnoOf(error))) tell(operation, error);
      throw error;
    }
  };
  const { write, flush, zero, extents, changes, commit, growth } = raw;
  return wrapDisk(raw, {
    read: (buffer, offset) => told('read', async () => raw.read(buffer, offset)),
    write: write && ((buffer, offset, options) => told('write', async () => raw.write?.(buffer, offset, options))),
    flush: flush && (() => told('flush', async () => raw.flush?.())),
    zero: zero && ((offset, length, options) => told('zero', async () => raw.zero?.(offset, length, options))),
    extents: extents && ((offset, length) => told('extents', async () => (await raw.extents?.(offset, length)) ?? [])),
    changes: changes && ((offset, length) => told('changes', async () => (await raw.changes?.(offset, length)) ?? [])),
    commit: commit && ((context) => told('commit', async () => raw.commit?.(context))),
    growth: growth && {
      measure: () => told('measure', async () => growth.measure()),
      grow: (size) => told('grow', async () => growth.grow(size)),
    },
    close: () => told('close', async () => raw.close()),
  });
}
