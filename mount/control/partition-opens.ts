/** How often the files of partitions are open, as the control interface tells it. */
import type { PartitionInfo } from './interface.js';

/**
 * Partitions with how often each is open.
 * @param files of the same partitions, in the same order
 * @param opens open handles by node id
 */
export function withOpens(
  partitions: PartitionInfo[] | null,
  files: readonly { readonly nodeId: number }[],
  opens: ReadonlyMap<number, number>,
): PartitionInfo[] | null {
  return partitions?.map((info, i) => ({ ...info, opens: opens.get(files[i]?.nodeId ?? 0) ?? 0 })) ?? null;
}
