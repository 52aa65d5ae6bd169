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
  /**
   * PARTUUID, in small letters: the unique GUID of a GPT; of an MBR the number of the disk and that of the partition, as
   * `8e2f1c4a-01`, null if the disk has no number
   */
  readonly uuid: string | null;
  /** it may only be read: it shares bytes with another partition, or is cut at the end of the disk */
  readonly readOnly: boolean;
}

/** A partition as its table describes it; it need not fit to the disk. */
export type FoundPartition = Omit<Partition, 'readOnly'>;

/** The contents of a table before fitToDisk checks them. */
export interface FoundTable {
  readonly table: 'mbr' | 'gpt' | null;
  readonly found: readonly FoundPartition[];
  readonly notes: readonly string[];
}

/** The sector sizes in which a table can count. */
export const SECTOR_SIZES = [512, 1024, 2048, 4096] as const;
export type SectorBytes = (typeof SECTOR_SIZES)[number];

/** The part of a sector that an MBR fills, and the sector size of most disks. */
export const SECTOR_BYTES = 512;

/** The disk whose table is read. */
export interface TableDisk {
  readonly read: ReadBytes;
  readonly diskBytes: number;
  /** the sectors in which its table counts; null: a GPT is looked for in all sizes, an MBR counts in 512 bytes */
  readonly sectorBytes: SectorBytes | null;
}

/** A view of the bytes, without a copy. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
