/** What the picture of a disk shows. */
import type { Cells } from './cells.js';

/** A partition to mark. */
export interface MarkedPartition {
  readonly name: string;
  /** bytes from the start of the disk */
  readonly offset: number;
  readonly size: number;
}

export interface Picture {
  /** what the disk is called */
  readonly name: string;
  readonly cells: Cells;
  readonly partitions: readonly MarkedPartition[];
  /** what a mark at the foot of a cell means; null: nothing is marked */
  readonly changes: string | null;
  /** of the grid; default: 64 */
  readonly columns?: number | undefined;
}
