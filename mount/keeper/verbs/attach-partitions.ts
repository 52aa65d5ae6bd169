/**
 * The partitions of a disk that is being attached. The server, which has the disk open, reads the table; each partition
 * that has a slot gets a node of its own.
 */
import type { CommandResult } from '../../server/commands.js';
import { partitionSlot } from '../../slots/partition-slots.js';
import type { Slot } from '../../slots/slots.js';
import type { Holdings } from '../vbds/holdings.js';
import type { VbdPartition } from '../vbds/vbd.js';
import type { AttachContext } from './attach-context.js';

export interface TakenPartitions {
  readonly partitions: readonly VbdPartition[];
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

/**
 * Gives nodes to the partitions of a table.
 * @param holdings own them afterwards
 * @throws FusetapError NO_SPACE if the bus has no more room for files
 */
export function takePartitions(
  context: Pick<AttachContext, 'newNode'>,
  disk: Slot,
  table: CommandResult<'partitions'>,
  holdings: Holdings,
): TakenPartitions {
  const notes = [...table.notes];
  const partitions: VbdPartition[] = [];
  for (const { number, offset, size, type, name } of table.partitions) {
    const place = partitionSlot(disk, number);
    if (place === null) {
      notes.push(`partition ${number} is left out: ${disk.vdev} has no slot for that number`);
      continue;
    }
    const node = context.newNode(holdings);
    partitions.push({ ...place, ...node, offset, size, type, name, leaving: false });
  }
  return { partitions, notes: notes.map((note) => `${disk.vdev}: ${note}`) };
}
