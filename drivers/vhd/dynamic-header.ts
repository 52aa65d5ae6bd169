/**
 * The header of a dynamic or differencing VHD, 1024 bytes, big-endian:
 *
 *        0  8  `cxsparse`                            36  4  checksum
 *       16  8  where the block allocation table is   40 16  unique id of the parent
 *       24  4  version, 0x00010000                   64 512 name of the parent, UTF-16
 *       28  4  entries of the table                 576     eight locators of the parent, of 24 bytes each:
 *       32  4  bytes of a block                              code (4), space (4), length (4), 0 (4), offset (8)
 *
 * XenServer adds a batmap after the table: which blocks have all their sectors. It is not used here, because each block
 * says so itself; only its place is.
 *
 * All this has places of its own, in which no block may be. Most programs put it before the blocks, but a locator may also be
 * behind them.
 */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo, sizeAt } from '../formats/read.js';
import { checksumOf, FOOTER_BYTES, FORMAT, type Footer, roundUp, startsWith } from './footer.js';

const HEADER_BYTES = 1024;
const CHECKSUM_AT = 36;
const VERSION = 0x00010000;
const NAME_AT = 64;
const NAME_BYTES = 512;
const LOCATORS_AT = 576;
const LOCATORS = 8;
const LOCATOR_BYTES = 24;
const SECTOR_BYTES = 512;
const LEAST_BLOCK_BYTES = 4096;
const MOST_BLOCK_BYTES = 256 << 20;
/** 8 TiB of blocks of 2 MiB; a VHD has at most 2 TiB */
const MOST_TABLE_BYTES = 16 << 20;
const MOST_LOCATOR_BYTES = 4096;
const BATMAP_BYTES = 64;
/** an entry of the table for a block that the image does not have */
export const NONE = 0xffff_ffff;
const CHUNK_BYTES = 1 << 20;
/** the id of a parent that is a raw image */
export const RAW_PARENT = '0'.repeat(32);

export interface DynamicHeader {
  /** where the table is */
  readonly tableAt: number;
  readonly blockBytes: number;
  /** blocks that the disk needs; the table may have more entries */
  readonly blocks: number;
  /** of a block: the bits that say which sectors it has, before its data */
  readonly bitmapBytes: number;
  /** where no block may be, by their beginnings; some may overlap */
  readonly reserved: readonly Reserved[];
  /** behind the last of them */
  readonly reservedEnd: number;
  /** null: the image is dynamic */
  readonly parent: Parent | null;
}

/** Bytes of the image that are not of a block. */
export interface Reserved {
  /** as in `it overlaps WHAT` */
  readonly what: string;
  readonly start: number;
  readonly end: number;
}

/** The image that a differencing image is over. */
export interface Parent {
  /** null: a raw image, which has no id */
  readonly uuid: string | null;
  /** the names of its file, as the image has them; the best one first */
  readonly names: readonly string[];
}

/** @throws FusetapError UNSUPPORTED a variant; FAILED it is damaged */
export async function readDynamicHeader(image: Disk, { headerAt, type, size }: Footer): Promise<DynamicHeader> {
  if (headerAt < FOOTER_BYTES || headerAt % SECTOR_BYTES !== 0 || headerAt + HEADER_BYTES > image.size)
    throw broken(FORMAT, `its header is said to be at byte ${headerAt}`);
  const bytes = await readUpTo(image, headerAt, HEADER_BYTES);
  if (!startsWith(bytes, 'cxsparse')) throw broken(FORMAT, `there is no header at byte ${headerAt}`);
  if (bytes.readUInt32BE(CHECKSUM_AT) !== checksumOf(bytes, CHECKSUM_AT))
    throw broken(FORMAT, 'the checksum of its header is wrong');
  const version = bytes.readUInt32BE(24);
  if (version !== VERSION) throw unsupported(`it is a VHD whose header has version 0x${version.toString(16)}`);
  const shape = shapeOf(bytes, image.size, size);
  const locators = locatorsIn(bytes, image.size);
  const tableEnd = shape.tableAt + roundUp(4 * bytes.readUInt32BE(28), SECTOR_BYTES);
  const places: Reserved[] = [
    { what: 'the copy of the footer', start: 0, end: FOOTER_BYTES },
    { what: 'the header', start: headerAt, end: headerAt + HEADER_BYTES },
    { what: 'the table', start: shape.tableAt, end: tableEnd },
    ...(await batmapAt(image, tableEnd, shape)),
    ...locators.map(({ at, end }) => ({ what: 'a locator of the parent', start: at, end })),
  ];
  const reserved = places.filter(({ start, end }) => start < end).sort((a, b) => a.start - b.start);
  return {
    ...shape,
    reserved,
    reservedEnd: roundUp(Math.max(...reserved.map(({ end }) => end)), SECTOR_BYTES),
    parent: type === 'differencing' ? await parentIn(image, bytes, locators) : null,
  };
}

function shapeOf(
  bytes: Buffer,
  imageBytes: number,
  size: number,
): Pick<DynamicHeader, 'tableAt' | 'blockBytes' | 'blocks' | 'bitmapBytes'> {
  const tableAt = sizeAt(bytes, 16, 'be', FORMAT);
  const entries = bytes.readUInt32BE(28);
  const blockBytes = bytes.readUInt32BE(32);
  const isPowerOfTwo = (blockBytes & (blockBytes - 1)) === 0;
  if (!isPowerOfTwo || blockBytes < LEAST_BLOCK_BYTES || blockBytes > MOST_BLOCK_BYTES)
    throw broken(FORMAT, `its blocks have ${blockBytes} bytes`);
  const blocks = Math.ceil(size / blockBytes);
  if (blocks > entries) throw broken(FORMAT, `its ${entries} blocks are less than its size of ${size} bytes`);
  if (4 * blocks > MOST_TABLE_BYTES)
    throw unsupported(`it is a VHD of ${blocks} blocks, whose table is larger than 16 MiB`);
  if (tableAt % SECTOR_BYTES !== 0 || tableAt < FOOTER_BYTES || tableAt + 4 * entries > imageBytes)
    throw broken(FORMAT, `its table of ${entries} blocks at byte ${tableAt} is not inside the image`);
  return { tableAt, blockBytes, blocks, bitmapBytes: roundUp(blockBytes / SECTOR_BYTES / 8, SECTOR_BYTES) };
}

interface Locator {
  readonly code: string;
  readonly at: number;
  readonly length: number;
  readonly end: number;
}

function locatorsIn(bytes: Buffer, imageBytes: number): Locator[] {
  const locators: Locator[] = [];
  for (let i = 0; i < LOCATORS; i++) {
    const entry = bytes.subarray(LOCATORS_AT + i * LOCATOR_BYTES, LOCATORS_AT + (i + 1) * LOCATOR_BYTES);
    const code = entry.toString('latin1', 0, 4);
    if (code === '\0\0\0\0') continue;
    const [space, length] = [entry.readUInt32BE(4), entry.readUInt32BE(8)];
    const at = sizeAt(entry, 16, 'be', FORMAT);
    // the specification counts sectors, and most programs count bytes
    const end = at + (space < SECTOR_BYTES ? space * SECTOR_BYTES : space);
    if (end > imageBytes || at + length > end) throw broken(FORMAT, 'a locator of its parent is not inside the image');
    locators.push({ code, at, length, end });
  }
  return locators;
}

/** The header of the batmap and its bits; empty without one. @param at behind the table */
async function batmapAt(
  image: Disk,
  at: number,
  shape: Pick<DynamicHeader, 'tableAt' | 'blocks'>,
): Promise<Reserved[]> {
  const bytes = await readUpTo(image, at, BATMAP_BYTES);
  if (bytes.length < BATMAP_BYTES || !startsWith(bytes, 'tdbatmap')) return [];
  // a guest chooses the bits of its blocks, and so may write that word
  if (await isBlockAt(image, at, shape)) return [];
  if (bytes.readUInt8(29) === 1) {
    throw new FusetapError('UNSUPPORTED', 'it is an encrypted VHD', {
      hint: 'attach it with the tapdisk that made it',
    });
  }
  const start = sizeAt(bytes, 8, 'be', FORMAT);
  const end = start + bytes.readUInt32BE(16) * SECTOR_BYTES;
  if (end > image.size) throw broken(FORMAT, 'its batmap is not inside the image');
  return [
    { what: 'the header of the batmap', start: at, end: at + SECTOR_BYTES },
    { what: 'the batmap', start, end },
  ];
}

/** Whether the table says that a block begins at a byte. */
async function isBlockAt(
  image: Disk,
  at: number,
  { tableAt, blocks }: Pick<DynamicHeader, 'tableAt' | 'blocks'>,
): Promise<boolean> {
  for (let done = 0; done < 4 * blocks; done += CHUNK_BYTES) {
    const bytes = await readUpTo(image, tableAt + done, Math.min(CHUNK_BYTES, 4 * blocks - done));
    for (let i = 0; i < bytes.length; i += 4) if (bytes.readUInt32BE(i) * SECTOR_BYTES === at) return true;
  }
  return false;
}

/** The order in which the kinds of locators are tried: relative ones first. */
const CODES = ['W2ru', 'MacX', 'W2ku'];

async function parentIn(image: Disk, bytes: Buffer, locators: readonly Locator[]): Promise<Parent> {
  const uuid = bytes.toString('hex', 40, 56);
  const names: string[] = [];
  for (const code of CODES) {
    for (const locator of locators.filter((each) => each.code === code)) {
      const name = await readUpTo(image, locator.at, Math.min(locator.length, MOST_LOCATOR_BYTES));
      names.push(code === 'MacX' ? ofUrl(name.toString('utf8')) : ofWindows(name.toString('utf16le')));
    }
  }
  const swapped = Buffer.from(bytes.subarray(NAME_AT, NAME_AT + NAME_BYTES)).swap16();
  names.push(ofWindows(swapped.toString('utf16le')));
  return { uuid: uuid === RAW_PARENT ? null : uuid, names: names.filter((name) => name !== '') };
}

/** A name as Windows has it, with the slashes of Linux and without a drive. */
function ofWindows(name: string): string {
  return withoutEnd(name)
    .replaceAll('\\', '/')
    .replace(/^[A-Za-z]:/, '');
}

function ofUrl(url: string): string {
  const path = withoutEnd(url).replace(/^file:\/\/(localhost)?/, '');
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** Without the zeros that end a name, and what follows them. */
function withoutEnd(name: string): string {
  const end = name.indexOf('\0');
  return (end < 0 ? name : name.slice(0, end)).trim();
}
