/**
 * Recognizes a file system without a partition table. The first sector of FAT, exFAT or NTFS ends in 0x55AA like an MBR,
 * and has code or text in the place of the MBR's entries. The difference is the parameter block in front of that code:
 * an MBR has code there.
 */
import { viewOf } from './partition.js';

const BOOT_CODE_STARTS = [0xeb, 0xe9];
const SMALLEST_MEDIA_BYTE = 0xf8;
const FLOPPY_MEDIA_BYTE = 0xf0;

/** The file system whose first sector this is, or null if it is none of these. */
export function fileSystemOf(sector: Uint8Array): 'FAT' | 'exFAT' | 'NTFS' | null {
  if (hasText(sector, 3, 'NTFS    ')) return 'NTFS';
  if (hasText(sector, 3, 'EXFAT   ')) return 'exFAT';
  return hasFatParameters(sector) ? 'FAT' : null;
}

function hasFatParameters(sector: Uint8Array): boolean {
  const view = viewOf(sector);
  const sectorBytes = view.getUint16(11, true);
  const clusterSectors = view.getUint8(13);
  const reserved = view.getUint16(14, true);
  const copies = view.getUint8(16);
  const media = view.getUint8(21);
  return (
    BOOT_CODE_STARTS.includes(view.getUint8(0)) &&
    [512, 1024, 2048, 4096].includes(sectorBytes) &&
    isPowerOfTwo(clusterSectors) &&
    reserved > 0 &&
    copies > 0 &&
    copies <= 4 &&
    (media >= SMALLEST_MEDIA_BYTE || media === FLOPPY_MEDIA_BYTE)
  );
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

function hasText(sector: Uint8Array, at: number, text: string): boolean {
  return (
    Buffer.from(sector.buffer, sector.byteOffset, sector.byteLength).toString('latin1', at, at + text.length) === text
  );
}
