/** The open handles of partitions, for the control interface. */
import type { PartitionInfo } from './interface.js';

/**
 * Adds to each partition how many open handles it has.
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
