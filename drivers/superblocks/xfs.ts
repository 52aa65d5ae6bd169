/** XFS: the first sector, in big-endian order. Version 5 has a checksum. */
import { crc32c } from '../vhdx/crc32c.js';
import type { DiskBytes } from './disk-bytes.js';
import { hasText, labelIn, type SuperblockReader, u64be, uuidIn } from './superblock.js';

const FIELDS_BYTES = 512;
const CHECKSUM_AT = 224;
const MORE_BITS = 0x8000;
const HAS_CHECKSUM = 0x100;
const MOST_EXTENT_BYTES = 1 << 30;
const LEAST_EXTENT_BYTES = 4 << 10;
const LEAST_GROUP_BLOCKS = 64;

export const xfs: SuperblockReader = {
  usage: 'filesystem',
  read: async (disk) => {
    const bytes = disk.head(0, FIELDS_BYTES);
    if (bytes === null || !hasText(bytes, 0, 'XFSB') || !isSane(bytes) || !isIntact(bytes, disk)) return null;
    return { type: 'xfs', label: labelIn(bytes.subarray(108, 120)), uuid: uuidIn(bytes.subarray(32, 48)) };
  },
};

/** The checks of libblkid: four bytes of magic alone could be the data of something else. */
function isSane(bytes: Buffer): boolean {
  const blockBytes = bytes.readUInt32BE(4);
  const extentBytes = bytes.readUInt32BE(80) * blockBytes;
  const [groupBlocks, groups] = [bytes.readUInt32BE(84), bytes.readUInt32BE(88)];
  const blocks = u64be(bytes, 8);
  const [blockLog = 0, sectorLog = 0, inodeLog = 0, inodesPerBlockLog = 0] = bytes.subarray(120, 124);
  return (
    groups > 0 &&
    isPower(bytes.readUInt16BE(102), sectorLog, [9, 15]) &&
    isPower(blockBytes, blockLog, [9, 16]) &&
    isPower(bytes.readUInt16BE(104), inodeLog, [8, 11]) &&
    blockLog - inodeLog === inodesPerBlockLog &&
    extentBytes <= MOST_EXTENT_BYTES &&
    extentBytes >= LEAST_EXTENT_BYTES &&
    bytes.readUInt8(127) <= 100 &&
    blocks > 0 &&
    blocks <= groups * groupBlocks &&
    blocks >= (groups - 1) * groupBlocks + LEAST_GROUP_BLOCKS
  );
}

function isPower(value: number, log: number, [least, most]: readonly [number, number]): boolean {
  return log >= least && log <= most && value === 1 << log;
}

function isIntact(bytes: Buffer, disk: DiskBytes): boolean {
  const version = bytes.readUInt16BE(100);
  if ((version & 0xf) !== 5) return true;
  const sector = disk.head(0, bytes.readUInt16BE(102));
  if (sector === null || !(version & MORE_BITS) || !(bytes.readUInt32BE(200) & HAS_CHECKSUM)) return false;
  const copy = Buffer.from(sector);
  copy.fill(0, CHECKSUM_AT, CHECKSUM_AT + 4);
  return crc32c(copy) === bytes.readUInt32LE(CHECKSUM_AT);
}
