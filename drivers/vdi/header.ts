/**
 * The header of a VDI, little-endian:
 *
 *       64  4  signature                             360  4  bytes of a sector
 *       68  4  version, 0x00010001                   368  8  bytes of the disk
 *       72  4  bytes of the header, from here on     376  4  bytes of a block
 *       76  4  type: 1 dynamic, 2 static, …          380  4  extra bytes before each block
 *      340  4  where the map begins                  384  4  blocks
 *      344  4  where the data begins                 424  16 and 440 16: ids of a parent
 *
 * The map has a u32 for each block: its place, counted in blocks from where the data begins.
 */
import type { Disk } from '../disk.js';
import { broken, unsupported } from '../formats/faults.js';
import { readUpTo, sizeAt } from '../formats/read.js';
import { wrongFormat } from '../formats/wrong-format.js';

const HEADER_BYTES = 512;
/** where the sized part of the header begins, and its least size */
const SIZED_AT = 72;
const LEAST_SIZED_BYTES = 0x180;
const SIGNATURE = 0xbeda107f;
const VERSION = 0x00010001;
const STATIC = 2;
const OTHER_TYPES: Readonly<Record<number, string>> = { 1: 'dynamic', 3: 'undo', 4: 'differencing' };
const SECTOR_BYTES = 512;
/** no writer makes smaller blocks; a map of tiny blocks would be read for long */
const LEAST_BLOCK_BYTES = 4096;
const MAP_CHUNK_BYTES = 1 << 14;

/** The disk is the bytes `start` to `start + size` of the image. */
export interface StaticVdi {
  readonly start: number;
  readonly size: number;
}

interface Header extends StaticVdi {
  readonly mapStart: number;
  /** blocks that the disk needs; the map may have more */
  readonly blocks: number;
}

/** @throws FusetapError USAGE not a VDI; UNSUPPORTED another type, or blocks not in order; FAILED it is damaged */
export async function readStaticVdi(image: Disk): Promise<StaticVdi> {
  const bytes = await readUpTo(image, 0, HEADER_BYTES);
  if (bytes.length < HEADER_BYTES || bytes.readUInt32LE(64) !== SIGNATURE)
    throw await wrongFormat(image, 'a VDI image');
  refuseVariants(bytes);
  const header = parseHeader(bytes, image.size);
  await checkMap(image, header);
  return { start: header.start, size: header.size };
}

function refuseVariants(bytes: Buffer): void {
  const version = bytes.readUInt32LE(68);
  if (version !== VERSION) throw unsupported(`it is a VDI of version 0x${version.toString(16)}, not 0x10001`);
  const type = bytes.readUInt32LE(76);
  const name = OTHER_TYPES[type];
  if (name !== undefined) throw unsupported(`it is a VDI of type ${type} (${name}): only static ones are served`);
  if (type !== STATIC) throw broken('VDI', `its type is ${type}`);
  const hasParent = [...bytes.subarray(424, 456)].some((byte) => byte !== 0);
  if (hasParent) throw unsupported('it is a VDI with a parent: only static ones without parents are served');
  const sector = bytes.readUInt32LE(360);
  if (sector !== SECTOR_BYTES) throw unsupported(`it is a VDI with sectors of ${sector} bytes, not ${SECTOR_BYTES}`);
  const extra = bytes.readUInt32LE(380);
  if (extra !== 0) throw unsupported(`it is a VDI with ${extra} extra bytes before each block`);
}

function parseHeader(bytes: Buffer, imageBytes: number): Header {
  const sized = bytes.readUInt32LE(SIZED_AT);
  const mapStart = bytes.readUInt32LE(340);
  const start = bytes.readUInt32LE(344);
  const size = sizeAt(bytes, 368, 'le', 'VDI');
  const blockBytes = bytes.readUInt32LE(376);
  const hasBlocks = bytes.readUInt32LE(384);
  if (sized < LEAST_SIZED_BYTES || SIZED_AT + sized > mapStart) {
    throw broken('VDI', `its header of ${sized} bytes does not end before its map at byte ${mapStart}`);
  }
  if (size === 0) throw broken('VDI', 'its size is 0');
  if (blockBytes < LEAST_BLOCK_BYTES || blockBytes % SECTOR_BYTES !== 0) {
    throw broken('VDI', `its blocks have ${blockBytes} bytes`);
  }
  const blocks = Math.ceil(size / blockBytes);
  if (blocks > hasBlocks) throw broken('VDI', `its ${hasBlocks} blocks are less than its size of ${size} bytes`);
  if (mapStart + 4 * hasBlocks > start) throw broken('VDI', `its map of ${hasBlocks} blocks reaches into its data`);
  if (start + size > imageBytes) {
    throw broken('VDI', `its data ends at byte ${start + size}, and the image has ${imageBytes} bytes`);
  }
  return { mapStart, start, size, blocks };
}

/** Reads the map in parts. @throws FusetapError UNSUPPORTED if a block is not at its place */
async function checkMap(image: Disk, { mapStart, blocks }: Header): Promise<void> {
  for (let first = 0; first < blocks; first += MAP_CHUNK_BYTES / 4) {
    const length = Math.min(MAP_CHUNK_BYTES, 4 * (blocks - first));
    const map = await readUpTo(image, mapStart + 4 * first, length);
    if (map.length < length) throw broken('VDI', 'its map is cut off');
    for (let at = 0; at < length; at += 4) {
      const block = first + at / 4;
      if (map.readUInt32LE(at) === block) continue;
      throw unsupported(`it is a VDI whose blocks are not in order: block ${block} is elsewhere, or not there`);
    }
  }
}
