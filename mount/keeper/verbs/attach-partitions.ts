/**
 * The partitions of a disk that is being attached. The server, which has the disk open, reads the table; each partition
 * that has a slot gets a node of its own. Used at attach, and when the table is read again.
 */
import type { CommandResult } from '../../server/commands.js';
import { partitionSlot } from '../../slots/partition-slots.js';
import type { Slot } from '../../slots/slots.js';
import type { AttachContext } from '../sources/attach-context.js';
import { Holdings } from '../vbds/holdings.js';
import type { Vbd, VbdPartition } from '../vbds/vbd.js';

export interface TakenPartitions {
  readonly partitions: readonly VbdPartition[];
  /** remarks for the user, one line each */
  readonly notes: readonly string[];
}

/**
 * Gives nodes to the partitions of a table. A partition that the disk has already, with the same range, keeps its node.
 * @param holdings own them afterwards
 * @throws FusetapError NO_SPACE if the bus has no more room for files
 */
export function takePartitions(
  context: Pick<AttachContext, 'newNode'>,
  disk: Slot & Pick<Vbd, 'mode'> & Partial<Pick<Vbd, 'partitions'>>,
  table: CommandResult<'partitions'>,
  holdings: Holdings,
): TakenPartitions {
  const notes = [...table.notes];
  const partitions: VbdPartition[] = [];
  for (const { number, ...partition } of table.partitions) {
    const place = partitionSlot(disk, number);
    if (place === null) {
      notes.push(`partition ${number} is left out: ${disk.vdev} has no slot for that number`);
      continue;
    }
    const known = disk.partitions?.find((old) => old.slot === place.slot && isSameRange(old, partition));
    if (known !== undefined) {
      partitions.push({ ...known, ...partition });
      continue;
    }
    const own = new Holdings();
    holdings.own(place.vdev, (usedByServer) => void own.release({ usedByServer }));
    const node = context.newNode(own, disk.mode === 'r' || partition.readOnly);
    partitions.push({ ...place, ...node, ...partition, leaving: false, holdings: own });
  }
  return { partitions, notes: notes.map((note) => `${disk.vdev}: ${note}`) };
}

type Range = Pick<VbdPartition, 'offset' | 'size' | 'readOnly'>;

function isSameRange(one: Range, other: Range): boolean {
  return one.offset === other.offset && one.size === other.size && one.readOnly === other.readOnly;
}
