/**
 * The map of a disk that is only read and made of others: what their places tell. They stay where they are, so a slice is
 * looked up once, when a request comes for it.
 */
import type { Places, RawDisk } from '../driver.js';
import { MapBelow } from './below.js';
import { DiskMap } from './disk-map.js';
import { MOST_FILES } from './table.js';

/**
 * Adds a map to a disk that has places.
 * @param granuleBytes a power of two, at least 512; threads do not serve granules that lie in several places
 */
export function withReadOnlyMap(disk: RawDisk & { readonly places: Places }, granuleBytes: number): RawDisk {
  const { size: sizeBytes, places } = disk;
  const map = new DiskMap({
    ...{ granuleBytes, sizeBytes, files: places.files.slice(0, MOST_FILES), startsUnknown: true },
    sliceState: () => null,
  });
  const below = new MapBelow({ map, locate: places.locate, takenFromBelow: (range) => [range] });
  return {
    ...disk,
    map: { map, start: 0, readOnly: true },
    read: async (buffer, offset) => {
      const first = Math.floor(offset / granuleBytes);
      below.learn(first, Math.ceil((offset + buffer.byteLength) / granuleBytes) - first);
      await disk.read(buffer, offset);
    },
  };
}
