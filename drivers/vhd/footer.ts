/**
 * The footer of a VHD, the last 512 bytes of the image, big-endian:
 *
 *        0  8  `conectix`                            60  4  type: 2 fixed, 3 dynamic, 4 differencing
 *       12  4  version, 0x00010000                   64  4  checksum
 *       48  8  current size: bytes of the disk       85  1  hidden: the image is a base of others (XenServer)
 *
 * Old writers made it one byte shorter: the image then ends with 511 bytes. Dynamic and differencing images have a copy
 * at byte 0, and may lack the footer after a crash.
 */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo, sizeAt } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';

const FOOTER_BYTES = 512;
const OLD_FOOTER_BYTES = 511;
const CHECKSUM_AT = 64;
const VERSION = 0x00010000;
const FIXED = 2;
/** the types with a block allocation table */
const TABLED: Readonly<Record<number, string>> = { 3: 'dynamic', 4: 'differencing' };

export interface FixedVhd {
  /** the disk is the bytes 0 to `size` of the image */
  readonly size: number;
  /** other images are made on top of it, so it must not change */
  readonly isHidden: boolean;
}

/** @throws FusetapError USAGE not a VHD; UNSUPPORTED another type; FAILED the footer is damaged */
export async function readFixedVhd(image: Disk): Promise<FixedVhd> {
  const last = await readUpTo(image, Math.max(0, image.size - FOOTER_BYTES), FOOTER_BYTES);
  const footer = footerIn(last);
  if (footer === null) throw await withoutFooter(image);
  checkFooter(footer);
  const size = sizeAt(footer, 48, 'be', 'VHD');
  const room = image.size - footer.length;
  if (size === 0) throw broken('VHD', 'its size is 0');
  if (size > room) throw broken('VHD', `its footer says ${size} bytes, and the image has ${room} before the footer`);
  return { size, isHidden: footer.readUInt8(85) !== 0 };
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

/** The error for an image that does not end with a footer. */
async function withoutFooter(image: Disk): Promise<FusetapError> {
  const first = await readUpTo(image, 0, FOOTER_BYTES);
  if (startsWith(first, 'v_poison')) return interrupted();
  if (!startsWith(first, 'conectix') || first.length < FOOTER_BYTES) return wrongFormat(image, 'a VHD image');
  const type = TABLED[first.readUInt32BE(60)];
  return type === undefined ? broken('VHD', 'it does not end with a footer') : tabled(type);
}

function checkFooter(footer: Buffer): void {
  if (footer.readUInt32BE(CHECKSUM_AT) !== checksumOf(footer))
    throw broken('VHD', 'the checksum of its footer is wrong');
  const version = footer.readUInt32BE(12);
  if (version !== VERSION) throw unsupported(`it is a VHD of version 0x${version.toString(16)}, not 0x10000`);
  const type = footer.readUInt32BE(60);
  const name = TABLED[type];
  if (name !== undefined) throw tabled(name);
  if (type !== FIXED) throw broken('VHD', `its type is ${type}`);
}

/** The ones' complement of the sum of all bytes, without those of the checksum. */
function checksumOf(footer: Buffer): number {
  let sum = 0;
  for (const [at, byte] of footer.entries()) if (at < CHECKSUM_AT || at >= CHECKSUM_AT + 4) sum += byte;
  return ~sum >>> 0;
}

function tabled(type: string): FusetapError {
  return unsupported(`it is a ${type} VHD: only fixed ones are served`);
}

function interrupted(): FusetapError {
  return new FusetapError('FAILED', 'an operation of vhd-util on this VHD was interrupted', {
    hint: 'undo it: vhd-util revert -n IMAGE -j JOURNAL',
  });
}

function startsWith(bytes: Buffer, text: string): boolean {
  return bytes.subarray(0, text.length).equals(Buffer.from(text, 'latin1'));
}
