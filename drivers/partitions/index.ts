/**
 * Reads partition tables. The contents of the disk are not trusted.
 *
 *      first sector ──► no table │ MBR, with its extended chain │ protective MBR ──► GPT, or its backup
 *                                            └────────► keepApart ◄────────┘
 */
import { readGpt } from './gpt.js';
import { keepApart } from './keep-apart.js';
import { isHybrid, judgeFirstSector, readMbr } from './mbr.js';
import { type FoundTable, type Partition, type ReadBytes, SECTOR_BYTES } from './partition.js';

export type { Partition, ReadBytes } from './partition.js';
export { typeName } from './types.js';

/** The valid part of a disk's partition table. */
export interface PartitionTable {
  /** null if the disk has no readable table */
  readonly table: 'mbr' | 'gpt' | null;
  /** by number; all inside the disk, no two share a byte */
  readonly partitions: readonly Partition[];
  /** the parts that were left out, and why, one line each */
  readonly notes: readonly string[];
}

/** a broken table can have thousands of faults */
const MAX_NOTES = 8;

/**
 * Reads the partition table of a disk.
 *
 * Resolves whatever the table contains. Reads at most 1.2 MiB in at most about 130 calls.
 * @param diskBytes the size of the disk
 * @throws what `read` rejects with
 */
export async function readPartitions(read: ReadBytes, diskBytes: number): Promise<PartitionTable> {
  const { table, found, notes } = await findTable(read, diskBytes);
  const { kept, notes: more } = keepApart(found, diskBytes);
  return { table, partitions: kept, notes: shorten([...notes, ...more]) };
}

async function findTable(read: ReadBytes, diskBytes: number): Promise<FoundTable> {
  if (diskBytes < SECTOR_BYTES)
    return { table: null, found: [], notes: ['the disk is too small for a partition table'] };
  const first = judgeFirstSector(await read(0, SECTOR_BYTES));
  switch (first.kind) {
    case 'none':
      return { table: null, found: [], notes: [first.why] };
    case 'mbr':
      return await readMbr(first.entries, read, diskBytes);
    case 'protective': {
      const gpt = await readGpt(read, diskBytes);
      const notes = isHybrid(first.entries) ? ['the MBR has partitions too (hybrid): those of the GPT are used'] : [];
      return { ...gpt, notes: [...notes, ...gpt.notes] };
    }
  }
}

function shorten(notes: readonly string[]): string[] {
  if (notes.length <= MAX_NOTES) return [...notes];
  return [...notes.slice(0, MAX_NOTES - 1), `and ${notes.length - MAX_NOTES + 1} more faults`];
}
