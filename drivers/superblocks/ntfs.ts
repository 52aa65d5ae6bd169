/** NTFS: the boot sector leads to the master file table, whose fourth record, $Volume, has the name. */
import { hasText, isPowerOfTwo, labelInUtf16, type SuperblockReader, u64le } from './superblock.js';

const MOST_CLUSTER_BYTES = 2 << 20;
const MOST_RECORD_BYTES = 64 << 10;
const LEAST_RECORD_BYTES = 64;
const VOLUME_RECORD = 3;
const ATTRIBUTE_BYTES = 22;
const VOLUME_NAME = 0x60;
const END = 0xffffffff;
/** fields of a FAT, which are zero here */
const ZEROS: readonly [at: number, end: number][] = [
  [14, 21],
  [22, 24],
  [32, 36],
];

export const ntfs: SuperblockReader = {
  usage: 'filesystem',
  read: async (disk) => {
    const boot = disk.head(0, 512);
    if (boot === null || !hasText(boot, 3, 'NTFS    ')) return null;
    const table = tableOf(boot);
    if (table === null) return null;
    const { start, recordBytes } = table;
    const first = await disk.at(start, recordBytes);
    const volume = await disk.at(start + VOLUME_RECORD * recordBytes, recordBytes);
    if (first === null || volume === null || !hasText(first, 0, 'FILE') || !hasText(volume, 0, 'FILE')) return null;
    const uuid = boot.readBigUInt64LE(72).toString(16).toUpperCase().padStart(16, '0');
    return { type: 'ntfs', label: nameIn(volume), uuid };
  },
};

/** Where the master file table is, in bytes; null if these are not the fields of an NTFS. */
function tableOf(boot: Buffer): { start: number; recordBytes: number } | null {
  const sectorBytes = boot.readUInt16LE(11);
  if (!isPowerOfTwo(sectorBytes) || sectorBytes < 256 || sectorBytes > 4096) return null;
  const code = boot.readUInt8(13);
  const clusterSectors = code >= 240 && code <= 249 ? 1 << (256 - code) : code;
  const clusterBytes = clusterSectors * sectorBytes;
  if (!isPowerOfTwo(clusterSectors) || clusterBytes > MOST_CLUSTER_BYTES) return null;
  if (ZEROS.some(([at, end]) => boot.subarray(at, end).some((byte) => byte !== 0))) return null;
  // a count of clusters, or the negative logarithm of a count of bytes
  const size = boot.readInt8(64);
  if (size < -31 || size === 0) return null;
  const recordBytes = size > 0 ? size * clusterBytes : 2 ** -size;
  if (recordBytes < LEAST_RECORD_BYTES || recordBytes > MOST_RECORD_BYTES) return null;
  const clusters = Math.floor(u64le(boot, 40) / clusterSectors);
  const [table, mirror] = [u64le(boot, 48), u64le(boot, 56)];
  return table > clusters || mirror > clusters ? null : { start: table * clusterBytes, recordBytes };
}

function nameIn(record: Buffer): Buffer | null {
  let at = record.readUInt16LE(20);
  const used = record.readUInt32LE(28);
  while (at + ATTRIBUTE_BYTES <= record.length && at <= used) {
    const [type, length] = [record.readUInt32LE(at), record.readUInt32LE(at + 4)];
    if (length === 0 || type === END) return null;
    if (type === VOLUME_NAME) {
      const [valueBytes, valueAt] = [record.readUInt32LE(at + 16), at + record.readUInt16LE(at + 20)];
      if (valueAt + valueBytes > record.length) return null;
      return labelInUtf16(record.subarray(valueAt, valueAt + valueBytes), 'le');
    }
    at += length;
  }
  return null;
}
