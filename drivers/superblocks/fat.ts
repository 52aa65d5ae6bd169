/**
 * FAT12, FAT16 and FAT32. The label is an entry of the root directory; the one in the boot sector is only a copy, which
 * tools do not keep up to date, and libblkid does not take it for the label either.
 */
import type { DiskBytes } from './disk-bytes.js';
import { hasText, isPowerOfTwo, labelIn, type SuperblockReader, volumeIdIn } from './superblock.js';

const MAGICS: readonly [at: number, text: string][] = [
  [0x52, 'MSWIN'],
  [0x52, 'FAT32   '],
  [0x36, 'MSDOS'],
  [0x36, 'FAT16   '],
  [0x36, 'FAT12   '],
  [0x36, 'FAT     '],
];
/** these have a boot sector that looks like that of a FAT */
const PRETENDERS = ['JFS     ', 'HPFS    '];
const MOST_CLUSTERS = { 12: 0xff4, 16: 0xfff4, 32: 0x0ffffff6 } as const;
const ENTRY_BYTES = 32;
/** of a directory, in one read */
const CHUNK_BYTES = 4096;
/** of the root directory of FAT32, as in libblkid */
const MOST_LINKS = 100;
const IS_LABEL = 0x08;
const IS_DIRECTORY = 0x10;
const IS_LONG_NAME = 0x0f;
const FREE = 0xe5;
/** stands for a first character 0xe5, which means that an entry is free */
const ESCAPED_E5 = 0x05;

/** Fields of the boot sector, in sectors if nothing else is said. */
interface Shape {
  readonly sectorBytes: number;
  readonly clusterSectors: number;
  readonly reserved: number;
  /** all copies together */
  readonly tables: number;
  readonly rootEntries: number;
  /** of one table; 0 if it is not a FAT32 */
  readonly table32: number;
}

export const fat: SuperblockReader = {
  usage: 'filesystem',
  read: async (disk) => {
    const boot = disk.head(0, 512);
    if (boot === null || !looksLikeFat(boot)) return null;
    const shape = shapeOf(boot);
    if (shape === null || !(await hasInfoSector(boot, shape, disk))) return null;
    const is32 = shape.table32 > 0;
    const label = is32 ? await findLabel32(boot.readUInt32LE(0x2c), shape, disk) : await findLabel16(shape, disk);
    const hasId = is32 || [0x28, 0x29].includes(boot.readUInt8(0x26));
    return { type: 'vfat', label, uuid: hasId ? volumeIdIn(boot, is32 ? 0x43 : 0x27) : null };
  },
};

function looksLikeFat(boot: Buffer): boolean {
  if (MAGICS.some(([at, text]) => hasText(boot, at, text))) return true;
  // old ones have only the start of their code, and the signature that an MBR has too
  const isBoot = boot.readUInt16BE(510) === 0x55aa;
  return isBoot && !PRETENDERS.some((text) => hasText(boot, 0x36, text));
}

/** Null if these are not the fields of a FAT. */
function shapeOf(boot: Buffer): Shape | null {
  const [sectorBytes, clusterSectors] = [boot.readUInt16LE(11), boot.readUInt8(13)];
  const [reserved, copies, rootEntries] = [boot.readUInt16LE(14), boot.readUInt8(16), boot.readUInt16LE(17)];
  const media = boot.readUInt8(21);
  if (copies === 0 || reserved === 0 || !(media >= 0xf8 || media === 0xf0)) return null;
  if (!isPowerOfTwo(clusterSectors) || !isPowerOfTwo(sectorBytes) || sectorBytes < 512 || sectorBytes > 4096) {
    return null;
  }
  const sectors = boot.readUInt16LE(19) || boot.readUInt32LE(32);
  const table16 = boot.readUInt16LE(22);
  const table32 = table16 === 0 ? boot.readUInt32LE(36) : 0;
  const tables = (table16 || table32) * copies;
  const root = Math.ceil((rootEntries * ENTRY_BYTES) / sectorBytes);
  const clusters = Math.floor((sectors - reserved - tables - root) / clusterSectors);
  const most = table32 > 0 ? MOST_CLUSTERS[32] : MOST_CLUSTERS[16];
  if (clusters < 0 || clusters > most) return null;
  return { sectorBytes, clusterSectors, reserved, tables, rootEntries, table32 };
}

/** A FAT32 names a sector with two signatures. Some have zeros there. */
async function hasInfoSector(boot: Buffer, { table32, sectorBytes }: Shape, disk: DiskBytes): Promise<boolean> {
  const at = boot.readUInt16LE(48);
  if (table32 === 0 || at === 0) return true;
  const info = await disk.at(at * sectorBytes, 512);
  if (info === null) return false;
  const isOne = (offset: number, texts: readonly string[]): boolean =>
    texts.some((text) => hasText(info, offset, text));
  return isOne(0, ['RRaA', 'RRdA', '\0\0\0\0']) && isOne(484, ['rrAa', '\0\0\0\0']);
}

async function findLabel16(shape: Shape, disk: DiskBytes): Promise<Buffer | null> {
  const start = (shape.reserved + shape.tables) * shape.sectorBytes;
  const found = await searchDirectory(disk, start, shape.rootEntries * ENTRY_BYTES);
  return found instanceof Buffer ? found : null;
}

async function findLabel32(first: number, shape: Shape, disk: DiskBytes): Promise<Buffer | null> {
  const { sectorBytes, clusterSectors, reserved, tables, table32 } = shape;
  const entries = (table32 * sectorBytes) / 4;
  let cluster = first;
  for (let links = 1; links < MOST_LINKS && cluster >= 2 && cluster < entries; links++) {
    const start = (reserved + tables + (cluster - 2) * clusterSectors) * sectorBytes;
    const found = await searchDirectory(disk, start, clusterSectors * sectorBytes);
    if (found !== 'none here') return found === 'none' ? null : found;
    const link = await disk.at(reserved * sectorBytes + cluster * 4, 4);
    if (link === null) return null;
    cluster = link.readUInt32LE(0) & 0x0fffffff;
  }
  return null;
}

/** @returns the label; `none` where the directory ends; `none here` if it may go on elsewhere */
async function searchDirectory(disk: DiskBytes, start: number, bytes: number): Promise<Buffer | 'none' | 'none here'> {
  for (let done = 0; done < bytes; done += CHUNK_BYTES) {
    const chunk = await disk.at(start + done, Math.min(CHUNK_BYTES, bytes - done));
    if (chunk === null) return 'none';
    for (let at = 0; at + ENTRY_BYTES <= chunk.length; at += ENTRY_BYTES) {
      const entry = chunk.subarray(at, at + ENTRY_BYTES);
      if (entry[0] === 0) return 'none';
      if (isLabel(entry)) return textOf(entry) ?? 'none';
    }
  }
  return 'none here';
}

function isLabel(entry: Buffer): boolean {
  const attributes = entry.readUInt8(11) & 0x3f;
  const hasCluster = entry.readUInt16LE(20) !== 0 || entry.readUInt16LE(26) !== 0;
  if (entry[0] === FREE || hasCluster || attributes === IS_LONG_NAME) return false;
  return (attributes & (IS_LABEL | IS_DIRECTORY)) === IS_LABEL;
}

function textOf(entry: Buffer): Buffer | null {
  const name = Buffer.from(entry.subarray(0, 11));
  if (name[0] === ESCAPED_E5) name[0] = FREE;
  return labelIn(name);
}
