/** exFAT: its boot sectors have a checksum; the label is an entry of the root directory. */
import type { DiskBytes } from './disk-bytes.js';
import { hasText, labelInUtf16, type SuperblockReader, volumeIdIn } from './superblock.js';

const CHECKED_SECTORS = 11;
/** fields that change without a new checksum: flags, and how full it is */
const UNCHECKED: ReadonlySet<number> = new Set([106, 107, 112]);
const ENTRY_BYTES = 32;
const CHUNK_BYTES = 4096;
const END = 0x00;
const LABEL = 0x83;
const LABEL_BYTES = 22;
const LAST_CLUSTER = 0xffffff6;
const MOST_LINKS = 100;

interface Shape {
  readonly sectorBytes: number;
  readonly clusterBytes: number;
  /** sectors */
  readonly fatStart: number;
  readonly heapStart: number;
  readonly rootCluster: number;
}

export const exfat: SuperblockReader = {
  usage: 'filesystem',
  read: async (disk) => {
    const boot = disk.head(0, 512);
    const shape = boot && shapeOf(boot);
    if (boot === null || shape === null || !isIntact(disk, shape)) return null;
    return { type: 'exfat', label: await findLabel(disk, shape), uuid: volumeIdIn(boot, 100) };
  },
};

function shapeOf(boot: Buffer): Shape | null {
  if (!hasText(boot, 0, '\xeb\x76\x90EXFAT   ') || boot.readUInt16BE(510) !== 0x55aa) return null;
  if (boot.subarray(11, 64).some((byte) => byte !== 0)) return null;
  const [fatStart, fatSectors, heapStart, clusters] = [80, 84, 88, 92].map((at) => boot.readUInt32LE(at)) as [
    number,
    number,
    number,
    number,
  ];
  const rootCluster = boot.readUInt32LE(96);
  const [sectorLog = 0, clusterLog = 0, fats = 0] = boot.subarray(108, 111);
  const isValid =
    (fats === 1 || fats === 2) &&
    sectorLog >= 9 &&
    sectorLog <= 12 &&
    clusterLog <= 25 - sectorLog &&
    fatStart >= 24 &&
    heapStart >= fatStart + fatSectors * fats &&
    heapStart <= 2 ** 31 &&
    rootCluster >= 2 &&
    rootCluster <= clusters + 1;
  if (!isValid) return null;
  const sectorBytes = 1 << sectorLog;
  return { sectorBytes, clusterBytes: sectorBytes << clusterLog, fatStart, heapStart, rootCluster };
}

/** The twelfth sector repeats the checksum of those before it. */
function isIntact(disk: DiskBytes, { sectorBytes }: Shape): boolean {
  const bytes = disk.head(0, (CHECKED_SECTORS + 1) * sectorBytes);
  if (bytes === null) return false;
  const end = CHECKED_SECTORS * sectorBytes;
  let checksum = 0;
  for (let i = 0; i < end; i++) {
    if (!UNCHECKED.has(i)) checksum = (((checksum & 1) << 31) + (checksum >>> 1) + (bytes[i] as number)) >>> 0;
  }
  for (let at = end; at < bytes.length; at += 4) if (bytes.readUInt32LE(at) !== checksum) return false;
  return true;
}

async function findLabel(disk: DiskBytes, shape: Shape): Promise<Buffer | null> {
  const { sectorBytes, clusterBytes, fatStart, heapStart } = shape;
  let cluster = shape.rootCluster;
  for (let links = 0; links < MOST_LINKS && cluster >= 2 && cluster <= LAST_CLUSTER; links++) {
    const start = heapStart * sectorBytes + (cluster - 2) * clusterBytes;
    for (let done = 0; done < clusterBytes; done += CHUNK_BYTES) {
      const chunk = await disk.at(start + done, Math.min(CHUNK_BYTES, clusterBytes - done));
      if (chunk === null) return null;
      for (let at = 0; at < chunk.length; at += ENTRY_BYTES) {
        const type = chunk[at];
        if (type === END) return null;
        if (type !== LABEL) continue;
        const length = Math.min((chunk[at + 1] as number) * 2, LABEL_BYTES);
        return labelInUtf16(chunk.subarray(at + 2, at + 2 + length), 'le');
      }
    }
    const link = await disk.at(fatStart * sectorBytes + cluster * 4, 4);
    if (link === null) return null;
    cluster = link.readUInt32LE(0);
  }
  return null;
}
