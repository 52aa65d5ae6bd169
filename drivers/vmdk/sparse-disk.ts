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
import type { Part } from '../lookup/part.js';
import { Reader } from '../lookup/reader.js';
import { serveParts } from '../lookup/serve-parts.js';
import { type GrainStream, readGrain } from './compressed-grain.js';
import { GrainFinder } from './find-grains.js';
import { GrainTables, type SparseParts } from './grain-tables.js';

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
  const { reading } = serveParts(reader, { size, granuleBytes: grainBytes, readOnly: true });
  return { ...reading, close: async () => {} };
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
