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
const [SPACE, ZERO] = [0x20, 0x30];

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
  const size = numberAt(block, 124, 12);
  if (size === null) throw broken('tar archive', `the size in the header at byte ${at} is not a number, or too large`);
  const type = String.fromCharCode(block.readUInt8(156));
  const isPosix = block.toString('latin1', 257, 263) === 'ustar\0';
  const prefix = isPosix ? textAt(block, 345, 155) : '';
  const name = textAt(block, 0, 100);
  return { name: prefix === '' ? name : `${prefix}/${name}`, size, type, isExtended: block.readUInt8(482) !== 0 };
}

/** Whether an archive begins with this block. Never throws: the block may be anything. */
export function beginsArchive(block: Buffer): boolean {
  try {
    return block.length === BLOCK_BYTES && parseTarHeader(block, 0) !== null;
  } catch {
    return false;
  }
}

/** The sum of all bytes, those of the checksum as spaces; some old programs take bytes as signed. */
function hasChecksum(block: Buffer): boolean {
  let [unsigned, signed] = [0, 0];
  for (let at = 0; at < BLOCK_BYTES; at++) {
    const byte = at >= 148 && at < 156 ? SPACE : (block[at] ?? 0);
    unsigned += byte;
    signed += byte < 0x80 ? byte : byte - 0x100;
  }
  const stated = numberAt(block, 148, 8);
  return stated !== null && (stated === unsigned || stated === signed);
}

/**
 * The number in a field: octal digits, with spaces before them, up to a space or NUL; or if the first bit is set, bytes
 * of a number (GNU). An archive may have a million headers, so this makes no objects.
 * @returns null if it is neither, or too large
 */
function numberAt(block: Buffer, from: number, length: number): number | null {
  let at = from;
  const end = from + length;
  if ((block[at] ?? 0) >= 0x80) return binaryAt(block, from, length);
  while (at < end && block[at] === SPACE) at++;
  let value = 0;
  for (; at < end && block[at] !== SPACE && block[at] !== 0; at++) {
    const digit = (block[at] ?? 0) - ZERO;
    if (digit < 0 || digit > 7) return null;
    value = value * 8 + digit;
  }
  return value;
}

function binaryAt(block: Buffer, from: number, length: number): number | null {
  // 0xff begins a negative number
  if (block[from] !== 0x80) return null;
  let value = 0;
  for (let at = from + 1; at < from + length; at++) value = value * 256 + (block[at] ?? 0);
  return value <= Number.MAX_SAFE_INTEGER ? value : null;
}

/** The text of a field, up to the first NUL. */
export function textAt(bytes: Buffer, from: number, length: number): string {
  let end = from;
  while (end < from + length && bytes[end] !== 0) end++;
  return bytes.toString('utf8', from, end);
}
