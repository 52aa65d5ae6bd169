/** A range of a disk as a disk: the base of offset, sizelimit and partitions. */
import type { RawDisk } from '../driver.js';

/**
 * The bytes `start` to `start + size` of a disk. A window stays a window, so threads still serve it.
 * @param start bytes; the range must be inside the disk
 */
export function narrow(next: RawDisk, start: number, size: number): RawDisk {
  const { window } = next;
  const disk: RawDisk = {
    size,
    ...(window && { window: { ...window, start: window.start + start, size } }),
    read: (buffer, offset) => next.read(buffer, start + offset),
    flush: async () => next.flush?.(),
    close: () => next.close(),
  };
  if (next.write) disk.write = async (buffer, offset, options) => next.write?.(buffer, start + offset, options);
  if (next.zero) disk.zero = async (offset, length, options) => next.zero?.(start + offset, length, options);
  if (next.extents) {
    disk.extents = async (offset, length) => {
      const extents = (await next.extents?.(start + offset, length)) ?? [];
      return extents.map((extent) => ({ ...extent, offset: extent.offset - start }));
    };
  }
  return disk;
}
