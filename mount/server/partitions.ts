/** The partitions of a disk as the server has them: disks of their own that live no longer than it. */
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { RawDisk } from '../../drivers/driver.js';
import { type PartitionTable, readPartitions } from '../../drivers/partitions/index.js';
import { partitionDisk } from '../../drivers/partitions/partition-disk.js';
import type { PartitionRef } from './commands.js';

export interface ServedPartition extends PartitionRef {
  readonly disk: Disk;
}

/** Opens a partition of a disk that is open. */
export function openPartition(whole: RawDisk, readOnly: boolean, ref: PartitionRef): ServedPartition {
  const disk = frontDisk(partitionDisk(whole, ref.offset, ref.size, readOnly), { readOnly });
  return { ...ref, disk };
}

/** What the disk's table says. One that cannot be read has no partitions: its disk may be of use all the same. */
export async function readTable(disk: Disk): Promise<PartitionTable> {
  const read = async (offset: number, length: number): Promise<Uint8Array> => {
    const bytes = new Uint8Array(length);
    await disk.read(bytes, offset);
    return bytes;
  };
  try {
    return await readPartitions(read, disk.size);
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    return { table: null, partitions: [], notes: [`the partition table cannot be read: ${why}`] };
  }
}
