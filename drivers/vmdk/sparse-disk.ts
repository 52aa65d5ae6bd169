/**
 * The disk of a sparse extent, which is only read.
 *
 *      request ──► Reader ──► GrainFinder ──► GrainTables        ┐
 *                    │    └─► DecodedCache ──► readGrain         ├──► the extent, the parent
 *                    └─► LookupMap ──► threads                   ┘
 */
import type { Disk } from '../disk.js';
import type { RawDisk } from '../driver.js';
import { DecodedCache } from '../lookup/decoded-cache.js';
import { LookupMap } from '../lookup/lookup-map.js';
import type { Part } from '../lookup/part.js';
import { Reader } from '../lookup/reader.js';
import { placedBy } from '../map/places.js';
import { type GrainStream, readGrain } from './compressed-grain.js';
import { GrainFinder } from './find-grains.js';
import { GrainTables, type SparseParts } from './grain-tables.js';
import type { SparseHeader } from './sparse-header.js';

/** @param backing what the extent takes from the parent: byte 0 is its first byte. Null: zeros */
export async function sparseDisk(parts: SparseParts, backing: Disk | null): Promise<RawDisk> {
  const { image, header } = parts;
  const { size, grainBytes } = header;
  const reader = new Reader<Part>({
    ...{ size, unitBytes: grainBytes, data: image, backing },
    finder: new GrainFinder(await GrainTables.load(parts)),
    decode: decoderOf(parts),
    mayHaveHoles: async () => false,
  });
  const map = reader.hasOwnFile ? mapOf(reader, header) : null;
  return {
    size,
    ...placedBy(reader.places),
    ...(map && { map: { map: map.map, start: 0, readOnly: true } }),
    read: async (buffer, offset) => {
      const found = await reader.finder.find(offset, buffer.byteLength);
      map?.learn(found);
      await reader.readFound(found, buffer, offset);
    },
    close: async () => {},
  };
}

function decoderOf({ image, header, shares }: SparseParts): (part: Part, buffer: Uint8Array) => Promise<void> {
  const { grainBytes } = header;
  const decoded = new DecodedCache<GrainStream>({
    ...{ unitBytes: grainBytes, shares },
    decode: (grain) => readGrain(image, grain, header),
  });
  return async ({ offset, place }, buffer) => {
    const skip = offset % grainBytes;
    const start = offset - skip;
    // two entries may name one grain, which is right for one of them at most
    const grain = await decoded.read(start, { place, start });
    buffer.set(grain.subarray(skip, skip + buffer.byteLength));
  };
}

function mapOf(reader: Reader<Part>, { size, grainBytes }: SparseHeader): LookupMap {
  return new LookupMap({
    ...{ size, granuleBytes: grainBytes, files: reader.places.files, reader },
    mayWrite: () => false,
    isStable: () => true,
  });
}
