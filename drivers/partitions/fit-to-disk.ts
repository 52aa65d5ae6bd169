/** Makes partitions fit to the disk, whatever the table says. */
import type { FoundPartition, Partition } from './partition.js';

/**
 * The partitions as ranges inside the disk, sorted by number. One that ends past the end of the disk is cut there, and
 * one that shares bytes with a partition of a lower number stays: both may only be read, because a write could damage
 * what they belong to. One that starts past the end is left out.
 * @returns the partitions, and a line for each partition that is changed or left out
 */
export function fitToDisk(found: readonly FoundPartition[], diskBytes: number): { kept: Partition[]; notes: string[] } {
  const kept: Partition[] = [];
  const notes: string[] = [];
  for (const partition of [...found].sort((a, b) => a.number - b.number)) {
    const { number, offset, size } = partition;
    if (offset >= diskBytes) {
      notes.push(`partition ${number} is left out: it starts at byte ${offset}, and the disk ends at ${diskBytes}`);
      continue;
    }
    const inside = Math.min(size, diskBytes - offset);
    const other = kept.find((before) => offset < before.offset + before.size && before.offset < offset + inside);
    const why = [
      inside < size && `it ends at byte ${offset + size}, and is cut at the end of the disk, ${diskBytes}`,
      other !== undefined && `it shares bytes with partition ${other.number}`,
    ].filter((reason) => reason !== false);
    if (why.length > 0) notes.push(`partition ${number} is read-only: ${why.join('; ')}`);
    kept.push({ ...partition, size: inside, readOnly: why.length > 0 });
  }
  return { kept, notes };
}
