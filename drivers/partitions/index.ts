/**
 * Reads partition tables. The contents of the disk are not trusted.
 *
 *      first sector ──► no table │ MBR, with its extended chain │ protective MBR ──► GPT, or its backup
 *                                            └────────► fitToDisk ◄────────┘
 */
import { fitToDisk } from './fit-to-disk.js';
import { foreignTable } from './foreign-tables.js';
import { readGpt } from './gpt.js';
import { isHybrid, judgeFirstSector, readMbr, unitOf, withUuids } from './mbr.js';
import {
  type FoundTable,
  type Partition,
  type ReadBytes,
  SECTOR_BYTES,
  type SectorBytes,
  type TableDisk,
} from './partition.js';

export { type Partition, type ReadBytes, SECTOR_SIZES, type SectorBytes } from './partition.js';
export { typeName } from './types.js';

/** The valid part of a disk's partition table. */
export interface PartitionTable {
  /** null if the disk has no readable table */
  readonly table: 'mbr' | 'gpt' | null;
  /** by number; all inside the disk, and no two that may be written share a byte */
  readonly partitions: readonly Partition[];
  /** what was changed or left out, and why, one line each */
  readonly notes: readonly string[];
}

/** a broken table can have thousands of faults */
const MAX_NOTES = 8;

/**
 * Reads the partition table of a disk.
 *
 * Resolves whatever the table contains. Reads at most 1.2 MiB in at most about 150 calls.
 * @param diskBytes the size of the disk
 * @param sectorBytes the sectors in which the table counts; null: a GPT tells, an MBR counts in 512 bytes
 * @throws what `read` rejects with
 */
export async function readPartitions(
  read: ReadBytes,
  diskBytes: number,
  sectorBytes: SectorBytes | null = null,
): Promise<PartitionTable> {
  const { table, found, notes } = await findTable({ read, diskBytes, sectorBytes });
  const { kept, notes: more } = fitToDisk(found, diskBytes);
  return { table, partitions: kept, notes: shorten([...notes, ...more]) };
}

async function findTable(disk: TableDisk): Promise<FoundTable> {
  const { read, diskBytes } = disk;
  if (diskBytes < SECTOR_BYTES)
    return { table: null, found: [], notes: ['the disk is too small for a partition table'] };
  const sector = await read(0, SECTOR_BYTES);
  const first = judgeFirstSector(sector, diskBytes / unitOf(disk));
  switch (first.kind) {
    case 'none': {
      const foreign = await foreignTable(disk);
      const why = foreign === null ? first.why : `the disk has ${foreign}, which fusetap does not read`;
      return { table: null, found: [], notes: [why] };
    }
    case 'mbr':
      return withUuids(await readMbr(first.entries, disk), sector);
    case 'protective': {
      const gpt = await readGpt(disk);
      const notes = isHybrid(first.entries) ? ['the MBR has partitions too (hybrid): those of the GPT are used'] : [];
      return { ...gpt, notes: [...notes, ...gpt.notes] };
    }
  }
}

function shorten(notes: readonly string[]): string[] {
  if (notes.length <= MAX_NOTES) return [...notes];
  return [...notes.slice(0, MAX_NOTES - 1), `and ${notes.length - MAX_NOTES + 1} more faults`];
}
