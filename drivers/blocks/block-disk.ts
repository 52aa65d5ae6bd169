/**
 * The disk of an image with a table of blocks, put together from its parts.
 *
 *      request ──► Reader ──► BlockFinder ──► BlockTable of the format ┐
 *              └─► BlockWriter ──► GrowingTable ──► EndSpace           ├──► image, backing disk
 *                  each tells LookupMap where bytes are ──► threads    ┘
 */
import { defined } from '../defined.js';
import type { Disk } from '../disk.js';
import type { RawDisk } from '../driver.js';
import { Barrier } from '../lookup/barrier.js';
import type { Part } from '../lookup/part.js';
import { Reader } from '../lookup/reader.js';
import { type PartsOptions, serveParts } from '../lookup/serve-parts.js';
import { UnitLock } from '../lookup/unit-lock.js';
import { BlockFinder } from './block-finder.js';
import type { BlockTable, GrowingTable } from './block-table.js';
import { BlockWriter } from './block-writer.js';

export interface BlockDiskParts {
  readonly image: Disk;
  /** of the disk */
  readonly size: number;
  /** what the image does not have; null: zeros */
  readonly backing: Disk | null;
  /** granules of the map: a power of two that divides the block; also what a write over the backing disk copies */
  readonly unitBytes: number;
  readonly identity?: string | undefined;
}

export function readOnlyBlockDisk(parts: BlockDiskParts, table: BlockTable): RawDisk {
  const { reading } = readerOf(parts, table);
  return { ...reading, ...defined({ identity: parts.identity }), activate: () => table.load(), close: async () => {} };
}

/** @param makeTable is given the barrier of the image */
export function writableBlockDisk(parts: BlockDiskParts, makeTable: (barrier: Barrier) => GrowingTable): RawDisk {
  const { image, size, unitBytes } = parts;
  const barrier = new Barrier(() => image.flush());
  const table = makeTable(barrier);
  const lock = new UnitLock(table.blockBytes);
  const { reading, reader, map } = readerOf(parts, table, {
    mayWrite: () => !image.readOnly,
    isStable: (offset, length) => lock.isFree(offset, length),
  });
  const writer = new BlockWriter({ size, unitBytes, image, table, reader, lock, barrier, map });
  let isActive = false;
  const durably = async ({ durable }: { durable: boolean }): Promise<void> => {
    if (durable) await barrier.pass();
  };
  return {
    ...reading,
    ...defined({ identity: parts.identity }),
    write: (buffer, offset, options) => writer.write(buffer, offset).then(() => durably(options)),
    zero: (offset, length, options) => writer.zero(offset, length, options).then(() => durably(options)),
    flush: () => barrier.flush(),
    activate: async () => {
      await image.growth?.measure();
      await table.load();
      isActive = true;
    },
    close: async () => {
      if (isActive) await table.close();
    },
  };
}

function readerOf(
  { image, size, backing, unitBytes }: BlockDiskParts,
  table: BlockTable,
  writing?: PartsOptions['writing'],
): { reader: Reader<Part> } & ReturnType<typeof serveParts> {
  const reader = new Reader<Part>({
    ...{ size, unitBytes, finder: new BlockFinder(table), data: image, backing },
    // blocks are long, and mostly holes when they are new
    mayHaveHoles: async () => true,
  });
  const { readOnly } = image;
  return { reader, ...serveParts(reader, { size, granuleBytes: unitBytes, readOnly, ...defined({ writing }) }) };
}
