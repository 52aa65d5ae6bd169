/** A disk made from another disk: it forwards every member that its maker does not replace. */
import type { RawDisk } from '../driver.js';

type Changes = { [Key in keyof RawDisk]?: RawDisk[Key] | undefined };

/**
 * Wraps a disk.
 * @param changes replace members of `next`; a member that is undefined is removed
 */
export function wrapDisk(next: RawDisk, changes: Changes): RawDisk {
  const wrapped: Changes = {
    size: next.size,
    window: next.window,
    read: (buffer, offset) => next.read(buffer, offset),
    write: next.write && (async (buffer, offset, options) => next.write?.(buffer, offset, options)),
    flush: next.flush && (async () => next.flush?.()),
    zero: next.zero && (async (offset, length, options) => next.zero?.(offset, length, options)),
    extents: next.extents && (async (offset, length) => (await next.extents?.(offset, length)) ?? []),
    close: () => next.close(),
    ...changes,
  };
  return Object.fromEntries(Object.entries(wrapped).filter(([, member]) => member !== undefined)) as unknown as RawDisk;
}
