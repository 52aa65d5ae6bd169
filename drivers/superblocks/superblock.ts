/** What the readers of superblocks share: their result, and the forms of labels and UUIDs, which are those of libblkid. */
import type { DiskBytes } from './disk-bytes.js';

/** What a disk or a partition holds. */
export interface Superblock {
  /** as blkid(8) names it, for example `ext4`, `vfat`, `crypto_LUKS`, `LVM2_member` */
  readonly type: string;
  readonly usage: 'filesystem' | 'crypto' | 'raid' | 'other';
  /** its bytes, most often UTF-8, at most 255; null if it has none */
  readonly label: Buffer | null;
  /** a UUID, or the volume id of FAT, exFAT, NTFS or ISO 9660; at most 40 characters; null if it has none */
  readonly uuid: string | null;
}

/** Reads one kind of superblock; null if the disk has none of it. Must not throw for any bytes. */
export interface SuperblockReader {
  readonly usage: Superblock['usage'];
  /** such a superblock may stand beside another one: the first counts then, as for blkid */
  readonly isTolerant?: true;
  /** bytes: smaller disks have no such superblock; default: 0 */
  readonly minBytes?: number;
  read(disk: DiskBytes): Promise<Omit<Superblock, 'usage'> | null>;
}

const MOST_LABEL_BYTES = 255;
/** the white space of C */
const BLANKS: ReadonlySet<number> = new Set([0x20, 0x09, 0x0a, 0x0b, 0x0c, 0x0d]);

/** A label in a field: up to the first zero, without blanks at its end; null if nothing is left. */
export function labelIn(field: Uint8Array): Buffer | null {
  const zero = field.indexOf(0);
  let end = Math.min(zero < 0 ? field.length : zero, MOST_LABEL_BYTES);
  while (end > 0 && BLANKS.has(field[end - 1] as number)) end -= 1;
  // a copy: the field is a part of a larger buffer, which would be kept alive
  return end === 0 ? null : Buffer.from(field.subarray(0, end));
}

/** The same for a field in UTF-16. */
export function labelInUtf16(field: Uint8Array, order: 'le' | 'be'): Buffer | null {
  const even = Buffer.from(field.subarray(0, field.length - (field.length % 2)));
  if (order === 'be') even.swap16();
  return labelIn(Buffer.from(new TextDecoder('utf-16le', { ignoreBOM: true }).decode(even)));
}

/** The text of the 16 bytes of a UUID; null if all are zero: there is none then. */
export function uuidIn(bytes: Uint8Array): string | null {
  if (bytes.every((byte) => byte === 0)) return null;
  const hex = Buffer.from(bytes.subarray(0, 16)).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** The text of a volume id of four bytes, as of FAT: `78E2-A0B1`. */
export function volumeIdIn(bytes: Buffer, at: number): string {
  const hex = bytes.readUInt32LE(at).toString(16).toUpperCase().padStart(8, '0');
  return `${hex.slice(0, 4)}-${hex.slice(4)}`;
}

export function hasText(bytes: Buffer, at: number, text: string): boolean {
  return bytes.toString('latin1', at, at + text.length) === text;
}

export function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

/** An unsigned 64-bit field. Values above 2^53 lose digits, but are beyond the end of every disk anyway. */
export function u64le(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at + 4) * 2 ** 32 + bytes.readUInt32LE(at);
}

/** The same in big-endian order. */
export function u64be(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}
