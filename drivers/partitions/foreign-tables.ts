/** Recognizes partition tables that fusetap does not read, so that it can say so. */
import { SECTOR_BYTES, type TableDisk, viewOf } from './partition.js';

/** A magic number, 16 or 32 bits in big-endian order, at a byte of the disk. */
type Magic = readonly [name: string, at: number, bits: 16 | 32, value: number];

/** FreeBSD, OpenBSD and NetBSD write it little-endian. */
const BSD_MAGIC = 0x57455682;

const MAGICS: readonly Magic[] = [
  // a driver descriptor, or at once the map, whose entries begin in the second sector
  ['an Apple partition map', 512, 32, 0x504d0000],
  ['an Apple partition map', 2048, 32, 0x504d0000],
  ['a Sun label', 508, 16, 0xdabe],
  ['an SGI label', 0, 32, 0x0be5a941],
  ['an Amiga partition table', 0, 32, 0x5244534b],
  ['a BSD label', 512, 32, BSD_MAGIC],
  ['a BSD label', 64, 32, BSD_MAGIC],
];

/** What table of another kind the disk has, as words for a message; null if it has none of those known. */
export async function foreignTable({ read, diskBytes }: TableDisk): Promise<string | null> {
  const length = Math.min(diskBytes, 2048 + SECTOR_BYTES);
  const view = viewOf(await read(0, length));
  const found = MAGICS.find(([, at, bits, value]) => {
    if (at + bits / 8 > length) return false;
    return value === (bits === 16 ? view.getUint16(at) : view.getUint32(at));
  });
  return found?.[0] ?? null;
}

/** Whether a label of BSD is at that byte: in the second sector of a slice. */
export async function hasBsdLabel({ read, diskBytes }: TableDisk, at: number): Promise<boolean> {
  return at + 4 <= diskBytes && viewOf(await read(at, 4)).getUint32(0) === BSD_MAGIC;
}
