/** Whatever a table says, partitions lie inside the disk and share no byte: what does not is left out. */
import type { Partition } from './partition.js';

/**
 * The partitions that can be windows of a disk, by number. Of two that overlap the one with the lower number stays.
 * @returns with one line for each that is left out
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
  // half of a partition would look like a whole one that is damaged
  if (end > diskBytes) return `it ends at byte ${end}, and the disk at ${diskBytes}`;
  const other = kept.find((before) => offset < before.offset + before.size && before.offset < end);
  return other === undefined ? null : `it shares bytes with partition ${other.number}`;
}
