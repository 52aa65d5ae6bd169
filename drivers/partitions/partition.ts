/** The words of the readers of partition tables. */

/** Reads exactly `length` bytes at `offset`; the range is inside the disk. */
export type ReadBytes = (offset: number, length: number) => Promise<Uint8Array>;

/** A partition as its table has it. */
export interface Partition {
  /** as programs number it: 1 to 4 are primary ones of an MBR, from 5 on logical ones; in a GPT the place of its entry */
  readonly number: number;
  /** bytes from the start of the disk */
  readonly offset: number;
  /** bytes */
  readonly size: number;
  /** the byte of an MBR in hexadecimal, as `83`; the GUID of a GPT, in capitals. Both as sfdisk prints them */
  readonly type: string;
  /** the name that a GPT gives it; null if it has none */
  readonly name: string | null;
}

/** What a table says, believed or not: keepApart judges it. */
export interface FoundTable {
  readonly table: 'mbr' | 'gpt' | null;
  readonly found: readonly Partition[];
  readonly notes: readonly string[];
}

/** The unit of an MBR always, of a GPT mostly. */
export const SECTOR_BYTES = 512;

/** The bytes as a view; a copy is not made. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
