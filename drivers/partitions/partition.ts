/** Types that the readers of partition tables share. */

/** Reads exactly `length` bytes at `offset`; the range is inside the disk. */
export type ReadBytes = (offset: number, length: number) => Promise<Uint8Array>;

/** A partition as described by its table. */
export interface Partition {
  /** the usual number: in an MBR primary partitions are 1 to 4, logical ones from 5 on; in a GPT the entries from 1 on */
  readonly number: number;
  /** bytes from the start of the disk */
  readonly offset: number;
  /** bytes */
  readonly size: number;
  /** as sfdisk prints it: the type byte of an MBR in hexadecimal, as `83`, or the type GUID of a GPT in capitals */
  readonly type: string;
  /** the name in a GPT; null if it has none */
  readonly name: string | null;
}

/** The contents of a table before keepApart checks them. */
export interface FoundTable {
  readonly table: 'mbr' | 'gpt' | null;
  readonly found: readonly Partition[];
  readonly notes: readonly string[];
}

/** The sector size of every MBR and of most GPTs. */
export const SECTOR_BYTES = 512;

/** A view of the bytes, without a copy. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
