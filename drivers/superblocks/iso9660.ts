/**
 * ISO 9660, also with Joliet. The name of an ISO 9660 has 32 characters of ASCII, `_` for all others; the name of Joliet
 * is the same in UTF-16, but ends after 16. libblkid joins the two, and so does this file. Its UUID is the time when it was made.
 */
import type { DiskBytes } from './disk-bytes.js';
import { hasText, labelIn, labelInUtf16, type SuperblockReader } from './superblock.js';

const START = 32 << 10;
const SECTOR_BYTES = 2048;
const MOST_DESCRIPTORS = 16;
const BOOT = 0;
const PRIMARY = 1;
const SUPPLEMENTARY = 2;
const END = 0xff;
const JOLIET_ESCAPES = ['%/@', '%/C', '%/E'];
const ROOT_RECORD_BYTES = 34;
const UNDERSCORE = 0x5f;

interface Descriptors {
  readonly primary: Buffer;
  readonly joliet: Buffer | null;
}

export const iso9660: SuperblockReader = {
  usage: 'filesystem',
  isTolerant: true,
  read: async (disk) => {
    const found = readDescriptors(disk);
    if (found === null || !(await hasRoot(found.primary, disk))) return null;
    return { type: 'iso9660', label: labelOf(found), uuid: timeAt(found.primary, 830) ?? timeAt(found.primary, 813) };
  },
};

function readDescriptors(disk: DiskBytes): Descriptors | null {
  let primary: Buffer | null = null;
  let joliet: Buffer | null = null;
  let hasBoot = false;
  for (let i = 0; i < MOST_DESCRIPTORS && !(hasBoot && primary && joliet); i++) {
    const each = disk.head(START + i * SECTOR_BYTES, SECTOR_BYTES);
    if (each === null || (i === 0 && !hasText(each, 1, 'CD001'))) break;
    const type = each.readUInt8(0);
    if (type === END) break;
    if (type === BOOT) hasBoot = true;
    else if (type === PRIMARY) primary ??= each;
    else if (type === SUPPLEMENTARY && JOLIET_ESCAPES.some((text) => hasText(each, 88, text))) joliet ??= each;
  }
  return primary === null ? null : { primary, joliet };
}

/** The first entry of the root directory is the directory itself: data of a file that looks like a descriptor has none. */
async function hasRoot(primary: Buffer, disk: DiskBytes): Promise<boolean> {
  const blockBytes = primary.readUInt16LE(128);
  const [block, bytes] = [primary.readUInt32LE(158), primary.readUInt32LE(166)];
  if (blockBytes === 0 || bytes < ROOT_RECORD_BYTES) return false;
  const entry = await disk.at(block * blockBytes, ROOT_RECORD_BYTES);
  if (entry === null) return false;
  const [length = 0] = entry;
  return length >= ROOT_RECORD_BYTES && entry[32] === 1 && entry[33] === 0 && entry.readUInt32LE(2) === block;
}

function labelOf({ primary, joliet }: Descriptors): Buffer | null {
  const ascii = primary.subarray(40, 72);
  if (joliet === null) return labelIn(ascii);
  const wide = joliet.subarray(40, 72);
  return labelInUtf16(joined(wide, ascii) ?? wide, 'be');
}

/** The ASCII name with its characters from the UTF-16 name; null if that is not the beginning of the same name. */
function joined(wide: Buffer, ascii: Buffer): Buffer | null {
  const units: number[] = [];
  let w = 0;
  let a = 0;
  for (; w + 1 < ascii.length && a < ascii.length; w += 2, a++) {
    let unit = wide.readUInt16BE(w);
    const isPair =
      unit >= 0xd800 && unit <= 0xdbff && w + 3 < ascii.length && ((wide[w + 2] as number) & 0xfc) === 0xdc;
    if (isPair) {
      units.push(unit);
      w += 2;
      unit = wide.readUInt16BE(w);
    }
    const character = ascii[a] as number;
    if (character === UNDERSCORE) units.push(unit);
    else if (unit === UNDERSCORE) units.push(character);
    else if (upper(character) === upper(unit)) units.push(isUpper(character) ? unit : character);
    else return null;
  }
  const all = [...units, ...ascii.subarray(a)];
  const bytes = Buffer.alloc(2 * all.length);
  for (const [i, unit] of all.entries()) bytes.writeUInt16BE(unit, 2 * i);
  return bytes;
}

function isUpper(unit: number): boolean {
  return unit >= 0x41 && unit <= 0x5a;
}

function upper(unit: number): number {
  return unit >= 0x61 && unit <= 0x7a ? unit - 0x20 : unit;
}

/** A time in 16 digits, and a time zone; null if it is not set. */
function timeAt(primary: Buffer, at: number): string | null {
  const text = primary.toString('latin1', at, at + 16);
  if (!/^\d{16}$/.test(text) || (/^0+$/.test(text) && primary[at + 16] === 0)) return null;
  return [text.slice(0, 4), ...(text.slice(4).match(/../g) ?? [])].join('-');
}
