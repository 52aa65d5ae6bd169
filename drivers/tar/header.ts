/**
 * The header of a member of a tar archive, 512 bytes of text:
 *
 *        0  100  name                          257    8  `ustar\0` + `00`: POSIX; `ustar  \0`: GNU
 *      124   12  size                          345  155  what comes before the name and a slash (POSIX)
 *      148    8  checksum                      482    1  blocks of a sparse map follow (GNU)
 *      156    1  type
 */
import { broken } from '../formats/faults.js';

export const BLOCK_BYTES = 512;
const ZEROS = Buffer.alloc(BLOCK_BYTES);

export interface TarHeader {
  readonly name: string;
  /** bytes of the member in the archive */
  readonly size: number;
  /** one character */
  readonly type: string;
  /** blocks of a sparse map follow */
  readonly isExtended: boolean;
}

/** The header in a block; null for a block of zeros, which ends the archive. @param at where it is, for messages */
export function parseTarHeader(block: Buffer, at: number): TarHeader | null {
  if (block.equals(ZEROS)) return null;
  if (!hasChecksum(block)) throw broken('tar archive', `the checksum of the header at byte ${at} is wrong`);
  const size = parseNumber(block.subarray(124, 136));
  if (size === null) throw broken('tar archive', `the size in the header at byte ${at} is not a number, or too large`);
  const type = String.fromCharCode(block.readUInt8(156));
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? textIn(block.subarray(345, 500)) : '';
  const name = textIn(block.subarray(0, 100));
  return { name: prefix === '' ? name : `${prefix}/${name}`, size, type, isExtended: block.readUInt8(482) !== 0 };
}

/** The sum of all bytes, those of the checksum as spaces; some old programs take bytes as signed. */
function hasChecksum(block: Buffer): boolean {
  let [unsigned, signed] = [0, 0];
  for (let at = 0; at < block.length; at++) {
    const byte = at >= 148 && at < 156 ? 0x20 : (block[at] ?? 0);
    unsigned += byte;
    signed += byte < 0x80 ? byte : byte - 0x100;
  }
  const stated = parseNumber(block.subarray(148, 156));
  return stated !== null && (stated === unsigned || stated === signed);
}

/** Octal digits, or from GNU bytes of a number if the first bit is set. @returns null if it is neither, or too large */
function parseNumber(field: Buffer): number | null {
  const [first = 0] = field;
  if (first >= 0x80) return parseBinary(field);
  const text = field
    .toString('latin1')
    .replace(/^ +/, '')
    .replace(/[ \0].*$/s, '');
  if (!/^[0-7]*$/.test(text)) return null;
  return Number.parseInt(text || '0', 8);
}

function parseBinary(field: Buffer): number | null {
  // 0xff begins a negative number
  if (field.readUInt8(0) !== 0x80) return null;
  let value = 0n;
  for (const byte of field.subarray(1)) value = (value << 8n) | BigInt(byte);
  return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : null;
}

/** The text before the first NUL. */
export function textIn(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}
