/**
 * The header of a VDI, little-endian:
 *
 *       64  4  signature                             360  4  bytes of a sector
 *       68  4  version, 0x00010001                   368  8  bytes of the disk
 *       72  4  bytes of the header, from here on     376  4  bytes of a block
 *       76  4  type: 1 dynamic, 2 static, …          380  4  extra bytes before each block
 *      340  4  where the map begins                  384  4  blocks
 *      344  4  where the data begins                 388  4  blocks that have a place
 *                                                    424  16 and 440 16: ids of a parent
 *
 * The map has a u32 for each block: its place, counted in blocks from where the data begins; or that it has none.
 */
import type { Disk } from '../disk.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo, sizeAt } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';

export const FORMAT = 'VDI';
/** where the count of blocks that have a place is */
export const COUNT_AT = 388;

const HEADER_BYTES = 512;
/** where the sized part of the header begins, and its least size */
const SIZED_AT = 72;
const LEAST_SIZED_BYTES = 0x180;
const SIGNATURE = 0xbeda107f;
const VERSION = 0x00010001;
const TYPES: Readonly<Record<number, 'dynamic' | 'static'>> = { 1: 'dynamic', 2: 'static' };
const OTHER_TYPES: Readonly<Record<number, string>> = { 3: 'undo', 4: 'differencing' };
const SECTOR_BYTES = 512;
/** no writer makes smaller blocks; a map of tiny blocks would be read for long */
const LEAST_BLOCK_BYTES = 4096;
/** the image grows by at least one block */
const MOST_BLOCK_BYTES = 256 << 20;
const MOST_MAP_BYTES = 64 << 20;

export interface Header {
  readonly type: 'dynamic' | 'static';
  /** bytes of the disk */
  readonly size: number;
  readonly mapStart: number;
  readonly dataStart: number;
  readonly blockBytes: number;
  /** blocks that the disk needs; the map may have more */
  readonly blocks: number;
  /** blocks that have a place, as the header says: not right after a crash */
  readonly count: number;
}

/** @throws FusetapError USAGE not a VDI; UNSUPPORTED another type; FAILED it is damaged */
export async function readHeader(image: Disk): Promise<Header> {
  const bytes = await readUpTo(image, 0, HEADER_BYTES);
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(64) !== SIGNATURE)
    throw await wrongFormat(image, 'a VDI image');
  return parseHeader(bytes, image.size, typeOf(bytes));
}

function typeOf(bytes: Buffer): Header['type'] {
  const version = bytes.readUInt32LE(68);
  if (version !== VERSION) throw unsupported(`it is a VDI of version 0x${version.toString(16)}, not 0x10001`);
  const number = bytes.readUInt32LE(76);
  const other = OTHER_TYPES[number];
  if (other !== undefined) throw unsupported(`it is a VDI of type ${number} (${other}), whose parent it does not name`);
  const type = TYPES[number];
  if (type === undefined) throw broken(FORMAT, `its type is ${number}`);
  const hasParent = [...bytes.subarray(424, 456)].some((byte) => byte !== 0);
  if (hasParent) throw unsupported('it is a VDI with a parent, which it does not name');
  const sector = bytes.readUInt32LE(360);
  if (sector !== SECTOR_BYTES) throw unsupported(`it is a VDI with sectors of ${sector} bytes, not ${SECTOR_BYTES}`);
  const extra = bytes.readUInt32LE(380);
  if (extra !== 0) throw unsupported(`it is a VDI with ${extra} extra bytes before each block`);
  return type;
}

function parseHeader(bytes: Buffer, imageBytes: number, type: Header['type']): Header {
  const sized = bytes.readUInt32LE(SIZED_AT);
  const mapStart = bytes.readUInt32LE(340);
  const dataStart = bytes.readUInt32LE(344);
  const size = sizeAt(bytes, 368, 'le', FORMAT);
  const blockBytes = bytes.readUInt32LE(376);
  const hasBlocks = bytes.readUInt32LE(384);
  if (sized < LEAST_SIZED_BYTES || SIZED_AT + sized > mapStart) {
    throw broken(FORMAT, `its header of ${sized} bytes does not end before its map at byte ${mapStart}`);
  }
  if (size === 0) throw broken(FORMAT, 'its size is 0');
  if (blockBytes < LEAST_BLOCK_BYTES || blockBytes > MOST_BLOCK_BYTES || blockBytes % SECTOR_BYTES !== 0) {
    throw broken(FORMAT, `its blocks have ${blockBytes} bytes`);
  }
  const blocks = Math.ceil(size / blockBytes);
  if (blocks > hasBlocks) throw broken(FORMAT, `its ${hasBlocks} blocks are less than its size of ${size} bytes`);
  if (mapStart + 4 * hasBlocks > dataStart)
    throw broken(FORMAT, `its map of ${hasBlocks} blocks reaches into its data`);
  if (dataStart > imageBytes)
    throw broken(FORMAT, `its data begins at byte ${dataStart}, and the image has ${imageBytes} bytes`);
  if (mapStart + 4 * blocks > imageBytes) throw broken(FORMAT, 'its map is cut off');
  if (4 * blocks > MOST_MAP_BYTES)
    throw unsupported(`it is a VDI of ${blocks} blocks, whose map is larger than 64 MiB`);
  return { type, size, mapStart, dataStart, blockBytes, blocks, count: bytes.readUInt32LE(COUNT_AT) };
}
