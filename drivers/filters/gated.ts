/** A disk that must take over from another process before it serves its first request. */
import type { RawDisk } from '../driver.js';
import { wrapDisk } from './wrap-disk.js';

/**
 * Calls `activate` of a disk once, before the first call that reads or changes it; these calls wait for it. A server
 * reads no request before the server that it replaces has exited, so that process cannot change the disk any more. If
 * `activate` rejects, so do the calls that wait for it, and the next call tries again.
 */
export function gated(next: RawDisk): RawDisk {
  let activation: Promise<void> | null = null;
  const ready = (): Promise<void> => {
    activation ??= (async () => next.activate?.())().catch((error: unknown) => {
      activation = null;
      throw error;
    });
    return activation;
  };
  const { write, flush, zero, extents, changes, commit, growth, places } = next;
  return wrapDisk(next, {
    activate: undefined,
    growth: growth && {
      measure: () => ready().then(() => growth.measure()),
      grow: (size) => ready().then(() => growth.grow(size)),
    },
    places: places && {
      files: places.files,
      locate: (...range) => ready().then(() => places.locate(...range)),
    },
    read: async (buffer, offset) => {
      await ready();
      await next.read(buffer, offset);
    },
    write: write && (async (buffer, offset, options) => ready().then(() => next.write?.(buffer, offset, options))),
    flush: flush && (async () => ready().then(() => next.flush?.())),
    zero: zero && (async (offset, length, options) => ready().then(() => next.zero?.(offset, length, options))),
    extents:
      extents && (async (offset, length) => ready().then(async () => (await next.extents?.(offset, length)) ?? [])),
    changes:
      changes && (async (offset, length) => ready().then(async () => (await next.changes?.(offset, length)) ?? [])),
    commit: commit && (async (context) => ready().then(() => next.commit?.(context))),
  });
}
