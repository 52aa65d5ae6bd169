/** Superblocks with few fields: swap space, LUKS, LVM2, squashfs. */
import { hasText, labelIn, type SuperblockReader, u64be, u64le, uuidIn } from './superblock.js';

/** the magic is at the end of the first page; pages have from 4 to 64 KiB */
const PAGE_SIZES = [4096, 8192, 16384, 32768, 65536];
const HIBERNATED = ['S1SUSPEND', 'S2SUSPEND', 'ULSUSPEND', 'LINHIB0001'];
/** at the start of the disk, of TuxOnIce: the swap header is out of date then */
const TUX_ON_ICE = '\xed\xc3\x02\xe9\x98\x56\xe5\x0c';
const LEAST_SWAP_BYTES = 10 * 4096;

/** Swap space, and swap space with the memory of a machine that sleeps. */
function swapReader(magics: readonly string[], type: string): SuperblockReader {
  return {
    usage: 'other',
    minBytes: LEAST_SWAP_BYTES,
    read: async (disk) => {
      const magic = PAGE_SIZES.flatMap((page) => {
        const end = disk.head(page - 10, 10);
        return end === null ? [] : magics.filter((each) => hasText(end, 0, each));
      })[0];
      const header = disk.head(1024, 512);
      const start = disk.head(0, 8);
      if (magic === undefined || header === null || start === null || hasText(start, 0, TUX_ON_ICE)) return null;
      if (magic === 'SWAP-SPACE') return { type, label: null, uuid: null };
      const isVersion1 = header.readUInt32LE(0) === 1 || header.readUInt32BE(0) === 1;
      if (magic === 'SWAPSPACE2' && !(isVersion1 && header.readUInt32LE(4) !== 0)) return null;
      // old headers have other data here
      if (header.readUInt32LE(172) !== 0 || header.readUInt32LE(176) !== 0) return { type, label: null, uuid: null };
      return { type, label: labelIn(header.subarray(28, 44)), uuid: uuidIn(header.subarray(12, 28)) };
    },
  };
}

export const swap = swapReader(['SWAP-SPACE', 'SWAPSPACE2'], 'swap');
export const hibernated = swapReader(HIBERNATED, 'swsuspend');

export const luks: SuperblockReader = {
  usage: 'crypto',
  read: async (disk) => {
    const header = disk.head(0, 512);
    if (header === null || !hasText(header, 0, 'LUKS\xba\xbe')) return null;
    const version = header.readUInt16BE(6);
    if (version === 2 && u64be(header, 256) !== 0) return null;
    const known = version === 1 || version === 2;
    const uuid = known ? (labelIn(header.subarray(168, 208))?.toString() ?? null) : null;
    return { type: 'crypto_LUKS', label: version === 2 ? labelIn(header.subarray(24, 72)) : null, uuid };
  },
};

const LABEL_BYTES = 512;
const LVM_CRC = [
  ...[0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c],
  ...[0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c],
];
/** after these characters of the id of a physical volume is a `-` */
const LVM_GROUPS = [6, 10, 14, 18, 22, 26];

/** A physical volume: its label is in one of the first four sectors. */
export const lvm2: SuperblockReader = {
  usage: 'raid',
  read: async (disk) => {
    for (const sector of [0, 1, 2, 3]) {
      const label = disk.head(sector * LABEL_BYTES, LABEL_BYTES);
      if (label === null || !hasText(label, 0, 'LABELONE') || !hasText(label, 24, 'LVM2 001')) continue;
      if (u64le(label, 8) !== sector || lvmChecksum(label.subarray(20)) !== label.readUInt32LE(16)) return null;
      const id = label.toString('latin1', 32, 64);
      const uuid = [0, ...LVM_GROUPS].map((from, i) => id.slice(from, LVM_GROUPS[i])).join('-');
      return { type: 'LVM2_member', label: null, uuid };
    }
    return null;
  },
};

function lvmChecksum(bytes: Uint8Array): number {
  let crc = 0xf597a6cf;
  for (const byte of bytes) {
    crc ^= byte;
    crc = (crc >>> 4) ^ (LVM_CRC[crc & 0xf] as number);
    crc = (crc >>> 4) ^ (LVM_CRC[crc & 0xf] as number);
  }
  return crc >>> 0;
}

/** It has neither label nor UUID. */
export const squashfs: SuperblockReader = {
  usage: 'filesystem',
  read: async (disk) => {
    const header = disk.head(0, 96);
    if (header === null || !(hasText(header, 0, 'hsqs') || hasText(header, 0, 'sqsh'))) return null;
    const version = hasText(header, 0, 'hsqs') ? header.readUInt16LE(28) : header.readUInt16BE(28);
    const type = version >= 4 ? 'squashfs' : 'squashfs3';
    return type === 'squashfs' && hasText(header, 0, 'sqsh') ? null : { type, label: null, uuid: null };
  },
};
