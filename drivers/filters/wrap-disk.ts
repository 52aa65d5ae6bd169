/** A disk made from another disk: it forwards every call that the maker does not replace. */
import type { RawDisk } from '../driver.js';

/**
 * Wraps a disk.
 * @param changes replace members of `next`; a member that is undefined is removed
 */
export function wrapDisk(next: RawDisk, changes: { [Key in keyof RawDisk]?: RawDisk[Key] | undefined }): RawDisk {
  const { segments, map, growth, places, identity } = next;
  const wrapped: { -readonly [Key in keyof RawDisk]?: RawDisk[Key] | undefined } = {
    // growth changes it
    get size() {
      return next.size;
    },
    segments,
    map,
    growth,
    places,
    identity,
    read: (buffer, offset) => next.read(buffer, offset),
    write: next.write && (async (buffer, offset, options) => next.write?.(buffer, offset, options)),
    flush: next.flush && (async () => next.flush?.()),
    zero: next.zero && (async (offset, length, options) => next.zero?.(offset, length, options)),
    extents: next.extents && (async (offset, length) => (await next.extents?.(offset, length)) ?? []),
    changes: next.changes && (async (offset, length) => (await next.changes?.(offset, length)) ?? []),
    commit: next.commit && (async (context) => next.commit?.(context)),
    activate: next.activate && (async () => next.activate?.()),
    giveUp: next.giveUp && (() => next.giveUp?.()),
    close: () => next.close(),
    ...changes,
  };
  for (const member of Object.keys(wrapped) as (keyof RawDisk)[]) {
    if (wrapped[member] === undefined) delete wrapped[member];
  }
  return wrapped as RawDisk;
}
