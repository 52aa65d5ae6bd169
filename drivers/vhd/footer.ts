/**
 * The footer of a VHD, the last 512 bytes of the image, big-endian:
 *
 *        0  8  `conectix`                            56  4  geometry: cylinders (2), heads, sectors of a track
 *       12  4  version, 0x00010000                   60  4  type: 2 fixed, 3 dynamic, 4 differencing
 *       16  8  where the dynamic header is           64  4  checksum
 *       28  4  the program that made it, 32 4 its    68 16  unique id
 *              version                               85  1  hidden: the image is a base of others (XenServer)
 *       48  8  current size: bytes of the disk
 *
 * Old writers made it one byte shorter: the image then ends with 511 bytes. Dynamic and differencing images have a copy
 * at byte 0, and may lack the footer after a crash.
 */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo, sizeAt } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';

export const FORMAT = 'VHD';
export const FOOTER_BYTES = 512;
const OLD_FOOTER_BYTES = 511;
const CHECKSUM_AT = 64;
const VERSION = 0x00010000;
const TYPES: Readonly<Record<number, 'fixed' | 'dynamic' | 'differencing'>> = {
  2: 'fixed',
  3: 'dynamic',
  4: 'differencing',
};
const SECTOR_BYTES = 512;
/** tapdisk's creator versions: before the first, bitmaps have another order; after the last, nothing is known */
const TAPDISK = { creator: 'tap\0', first: 0x0001_0001, last: 0x0001_0003 };

export interface Footer {
  readonly type: 'fixed' | 'dynamic' | 'differencing';
  /** the current size: bytes of the disk */
  readonly size: number;
  /** bytes of the disk by its geometry: at most the current size */
  readonly sizeByGeometry: number;
  /** of the dynamic header */
  readonly headerAt: number;
  /** in hexadecimal */
  readonly uuid: string;
  /** other images are made on top of it, so it must not change */
  readonly isHidden: boolean;
  readonly creator: string;
  /** false: only the copy at byte 0 is there, as after a crash */
  readonly isAtEnd: boolean;
  /** as in the image; the byte that old writers omit is 0 */
  readonly bytes: Buffer;
}

/** @throws FusetapError USAGE not a VHD; UNSUPPORTED another version; FAILED the footer is damaged */
export async function readFooter(image: Disk): Promise<Footer> {
  const last = await readUpTo(image, Math.max(0, image.size - FOOTER_BYTES), FOOTER_BYTES);
  const atEnd = footerIn(last);
  if (atEnd !== null) return parseFooter(atEnd, image.size, true);
  const copy = await readUpTo(image, 0, FOOTER_BYTES);
  if (startsWith(copy, 'v_poison')) throw interrupted();
  if (!startsWith(copy, 'conectix') || copy.length < FOOTER_BYTES) throw await wrongFormat(image, 'a VHD image');
  if (TYPES[copy.readUInt32BE(60)] === 'fixed') throw broken(FORMAT, 'it does not end with a footer');
  return parseFooter(copy, image.size, false);
}

/** Whether the last bytes of a disk are a sound footer. */
export async function endsWithFooter(disk: Disk): Promise<boolean> {
  const last = await readUpTo(disk, Math.max(0, disk.size - FOOTER_BYTES), FOOTER_BYTES);
  try {
    const footer = footerIn(last);
    return footer !== null && parseFooter(footer, disk.size, true).isAtEnd;
  } catch {
    return false;
  }
}

/** The footer in the last bytes of an image; null if there is none. */
function footerIn(last: Buffer): Buffer | null {
  for (const length of [FOOTER_BYTES, OLD_FOOTER_BYTES]) {
    if (last.length < length) continue;
    const footer = last.subarray(last.length - length);
    if (startsWith(footer, 'conectix')) return footer;
    if (startsWith(footer, 'v_poison')) throw interrupted();
  }
  return null;
}

function parseFooter(footer: Buffer, imageBytes: number, isAtEnd: boolean): Footer {
  if (footer.readUInt32BE(CHECKSUM_AT) !== checksumOf(footer, CHECKSUM_AT))
    throw broken(FORMAT, 'the checksum of its footer is wrong');
  const version = footer.readUInt32BE(12);
  if (version !== VERSION) throw unsupported(`it is a VHD of version 0x${version.toString(16)}, not 0x10000`);
  const number = footer.readUInt32BE(60);
  const type = TYPES[number];
  if (type === undefined) throw broken(FORMAT, `its type is ${number}`);
  const size = sizeAt(footer, 48, 'be', FORMAT);
  if (size === 0) throw broken(FORMAT, 'its size is 0');
  const room = imageBytes - footer.length;
  if (type === 'fixed' && size > room)
    throw broken(FORMAT, `its footer says ${size} bytes, and the image has ${room} before the footer`);
  const creator = footer.toString('latin1', 28, 32);
  if (type !== 'fixed') checkCreator(creator, footer.readUInt32BE(32));
  return {
    ...{ type, size, creator, isAtEnd },
    sizeByGeometry: Math.min(size, geometryBytes(footer) || size),
    headerAt: type === 'fixed' ? 0 : sizeAt(footer, 16, 'be', FORMAT),
    uuid: footer.toString('hex', 68, 84),
    isHidden: footer.readUInt8(85) !== 0,
    bytes: Buffer.concat([footer], FOOTER_BYTES),
  };
}

function geometryBytes(footer: Buffer): number {
  return footer.readUInt16BE(56) * footer.readUInt8(58) * footer.readUInt8(59) * SECTOR_BYTES;
}

function checkCreator(creator: string, version: number): void {
  if (creator !== TAPDISK.creator || (version >= TAPDISK.first && version <= TAPDISK.last)) return;
  const [major, minor] = [version >>> 16, version & 0xffff];
  throw unsupported(`it is a VHD of tapdisk ${major}.${minor}, whose bitmaps are not known`);
}

/** The ones' complement of the sum of all bytes, without those of the checksum. */
export function checksumOf(bytes: Buffer, checksumAt: number): number {
  let sum = 0;
  for (const [at, byte] of bytes.entries()) if (at < checksumAt || at >= checksumAt + 4) sum += byte;
  return ~sum >>> 0;
}

function interrupted(): FusetapError {
  return new FusetapError('FAILED', 'an operation of vhd-util on this VHD was interrupted', {
    hint: 'undo it: vhd-util revert -n IMAGE -j JOURNAL',
  });
}

/** The next multiple of a unit. */
export function roundUp(bytes: number, unit: number): number {
  return Math.ceil(bytes / unit) * unit;
}

export function startsWith(bytes: Buffer, text: string): boolean {
  return bytes.subarray(0, text.length).equals(Buffer.from(text, 'latin1'));
}
