/** Leaves out partitions that are not inside the disk or share bytes with another, whatever the table says. */
import type { Partition } from './partition.js';

/**
 * The partitions that can be windows of a disk, sorted by number. If two overlap, the one with the lower number is
 * kept.
 * @returns the partitions, and a line for each partition that is left out
 */
export function keepApart(found: readonly Partition[], diskBytes: number): { kept: Partition[]; notes: string[] } {
  const kept: Partition[] = [];
  const notes: string[] = [];
  for (const partition of [...found].sort((a, b) => a.number - b.number)) {
    const why = reasonToLeaveOut(partition, kept, diskBytes);
    if (why === null) kept.push(partition);
    else notes.push(`partition ${partition.number} is left out: ${why}`);
  }
  return { kept, notes };
}

function reasonToLeaveOut({ offset, size }: Partition, kept: readonly Partition[], diskBytes: number): string | null {
  const end = offset + size;
  // half a partition would look like a damaged one
  if (end > diskBytes) return `it ends at byte ${end}, and the disk at ${diskBytes}`;
  const other = kept.find((before) => offset < before.offset + before.size && before.offset < end);
  return other === undefined ? null : `it shares bytes with partition ${other.number}`;
}
