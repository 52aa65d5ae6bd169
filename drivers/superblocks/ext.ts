/** ext2, ext3, ext4, and their external journal: which one it is follows from the features. */
import { crc32c } from '../vhdx/crc32c.js';
import type { DiskBytes } from './disk-bytes.js';
import { labelIn, type SuperblockReader, uuidIn } from './superblock.js';

const MAGIC = 0xef53;
const CHECKSUM_AT = 1020;
const HAS_JOURNAL = 0x4;
const IS_JOURNAL = 0x8;
const HAS_CHECKSUMS = 0x400;
const IS_TEST = 0x4;
/** features that change nothing for programs which do not know them but read only; of ext2 and ext3 alike */
const OLD_READ_ONLY = 0x1 | 0x2 | 0x4;
const OLD_INCOMPATIBLE = { ext2: 0x2 | 0x10, ext3: 0x2 | 0x4 | 0x10 } as const;

export const ext = reader('filesystem', false);
export const jbd = reader('other', true);

function reader(usage: SuperblockReader['usage'], isJournal: boolean): SuperblockReader {
  return {
    usage,
    read: async (disk) => {
      const bytes = readFields(disk);
      const type = bytes && typeOf(bytes);
      if (bytes === null || type === null || (type === 'jbd') !== isJournal) return null;
      return { type, label: labelIn(bytes.subarray(120, 136)), uuid: uuidIn(bytes.subarray(104, 120)) };
    },
  };
}

function readFields(disk: DiskBytes): Buffer | null {
  const bytes = disk.head(1024, 1024);
  if (bytes === null || bytes.readUInt16LE(56) !== MAGIC) return null;
  // an ext without checksums: the size of its blocks is checked instead
  if ((bytes.readUInt32LE(100) & HAS_CHECKSUMS) === 0) return bytes.readUInt32LE(24) < 256 ? bytes : null;
  // without the inversion at the end
  const checksum = ~crc32c(bytes.subarray(0, CHECKSUM_AT)) >>> 0;
  return checksum === bytes.readUInt32LE(CHECKSUM_AT) ? bytes : null;
}

function typeOf(bytes: Buffer): 'jbd' | 'ext2' | 'ext3' | 'ext4' | 'ext4dev' | null {
  const [compatible, incompatible, readOnly] = [92, 96, 100].map((at) => bytes.readUInt32LE(at)) as [
    number,
    number,
    number,
  ];
  if (incompatible & IS_JOURNAL) return 'jbd';
  if (bytes.readUInt32LE(0x160) & IS_TEST) return 'ext4dev';
  const isOld = (incompatibleKnown: number): boolean =>
    (readOnly & ~OLD_READ_ONLY) === 0 && (incompatible & ~incompatibleKnown) === 0;
  if (!isOld(OLD_INCOMPATIBLE.ext3)) return 'ext4';
  if (compatible & HAS_JOURNAL) return 'ext3';
  return isOld(OLD_INCOMPATIBLE.ext2) ? 'ext2' : null;
}
