/** btrfs: its first superblock, at 64 KiB. Its checksum is checked if it is a CRC-32C, the usual one. */
import { crc32c } from '../vhdx/crc32c.js';
import { hasText, labelIn, type SuperblockReader, uuidIn } from './superblock.js';

const START = 64 << 10;
const BYTES = 4096;
const CHECKSUM_BYTES = 32;
const IS_CRC32C = 0;

export const btrfs: SuperblockReader = {
  usage: 'filesystem',
  read: async (disk) => {
    const bytes = disk.head(START, BYTES);
    if (bytes === null || !hasText(bytes, 64, '_BHRfS_M') || bytes.readUInt32LE(144) === 0) return null;
    const isChecked = bytes.readUInt16LE(196) === IS_CRC32C;
    if (isChecked && crc32c(bytes.subarray(CHECKSUM_BYTES)) !== bytes.readUInt32LE(0)) return null;
    return { type: 'btrfs', label: labelIn(bytes.subarray(299, 555)), uuid: uuidIn(bytes.subarray(32, 48)) };
  },
};
