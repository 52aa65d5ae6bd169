/** The partitions of a disk in the server: disks of their own, which are closed before their disk. */
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { RawDisk } from '../../drivers/driver.js';
import { type Partition, type PartitionTable, readPartitions } from '../../drivers/partitions/index.js';
import { partitionDisk } from '../../drivers/partitions/partition-disk.js';
import type { PartitionRef, PartitionsCommand } from './commands.js';

export interface ServedPartition extends PartitionRef {
  readonly disk: Disk;
}

/** Opens a partition of a disk that is open. */
export function openPartition(whole: RawDisk, isReadOnly: boolean, ref: PartitionRef): ServedPartition {
  const readOnly = isReadOnly || ref.readOnly === true;
  const disk = frontDisk(partitionDisk(whole, ref.offset, ref.size, readOnly), { readOnly });
  return { ...ref, disk };
}

/** Reads the partition table. A table that cannot be read is a note, not an error: the disk may still be usable. */
export async function readTable(
  disk: Disk,
  { sectorBytes }: Pick<PartitionsCommand, 'sectorBytes'>,
): Promise<PartitionTable> {
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length);
    await disk.read(bytes, offset);
    return bytes;
  };
  try {
    const table = await readPartitions(read, disk.size, sectorBytes ?? null);
    return sectorBytes === undefined ? { ...table, partitions: table.partitions.filter(isWritable) } : table;
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { table: null, partitions: [], notes: [`the partition table cannot be read: ${why}`] };
  }
}

function isWritable({ readOnly }: Partition): boolean {
  return !readOnly;
}
