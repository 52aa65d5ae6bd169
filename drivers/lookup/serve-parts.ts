/**
 * What all disks have whose parts are looked up: reads, places, and the map for threads.
 *
 *      request ──► Reader ──► Finder of the format ──► its tables
 *                    └─► LookupMap ──► threads
 */
import type { RawDisk } from '../driver.js';
import { placedBy } from '../map/places.js';
import { LookupMap, type LookupMapOptions } from './lookup-map.js';
import type { Part } from './part.js';
import type { Reader } from './reader.js';

export interface PartsOptions extends Pick<LookupMapOptions, 'size' | 'granuleBytes'> {
  readonly readOnly: boolean;
  /** default: threads never write */
  readonly writing?: Pick<LookupMapOptions, 'mayWrite' | 'isStable'>;
}

export type Reading = Pick<RawDisk, 'size' | 'read' | 'extents' | 'changes' | 'map' | 'places'>;

const NEVER: Pick<LookupMapOptions, 'mayWrite' | 'isStable'> = { mayWrite: () => false, isStable: () => true };

/** @returns map: null if the image is not one run of a file */
export function serveParts<P extends Part>(
  reader: Reader<P>,
  { size, granuleBytes, readOnly, writing = NEVER }: PartsOptions,
): { readonly reading: Reading; readonly map: LookupMap | null } {
  const { files } = reader.places;
  const map = reader.hasOwnFile ? new LookupMap({ size, granuleBytes, files, reader, ...writing }) : null;
  const reading: Reading = {
    size,
    ...placedBy(reader.places),
    ...(map && { map: { map: map.map, start: 0, readOnly } }),
    read: async (buffer, offset) => {
      const found = await reader.finder.find(offset, buffer.byteLength);
      map?.learn(found);
      await reader.readFound(found, buffer, offset);
    },
    ...(reader.hasBacking && { changes: (offset: number, length: number) => reader.changes(offset, length) }),
  };
  return { reading, map };
}
