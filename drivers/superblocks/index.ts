/**
 * Finds out what a disk or a partition holds, with its label and UUID, by the same rules as blkid(8) of util-linux:
 *
 *      the first 68 KiB ──► each reader, in the order of libblkid ──► one superblock ──► it
 *                                                                 └─► several ─────────► none: nobody knows which is right
 *
 * Several are no conflict if all of them may stand beside others, as the ISO 9660 of a hybrid image. A volume of LUKS or
 * LVM2 ends the search: what is found behind it is its data. The contents of the disk are not trusted.
 */
import type { ReadBytes } from '../partitions/partition.js';
import { btrfs } from './btrfs.js';
import { DiskBytes } from './disk-bytes.js';
import { exfat } from './exfat.js';
import { ext, jbd } from './ext.js';
import { fat } from './fat.js';
import { iso9660 } from './iso9660.js';
import { ntfs } from './ntfs.js';
import { hibernated, luks, lvm2, squashfs, swap } from './small.js';
import type { Superblock, SuperblockReader } from './superblock.js';
import { xfs } from './xfs.js';

export { HEAD_BYTES } from './disk-bytes.js';
export type { Superblock } from './superblock.js';

/** in the order of libblkid, which decides what counts if all that is found may stand beside others */
const READERS: readonly SuperblockReader[] = [
  ...[lvm2, luks, fat, hibernated, swap, xfs, ext, jbd, iso9660, ntfs, squashfs, btrfs, exfat],
];

/** a floppy disk: the first superblock counts, and a member of a volume group is not looked for */
const TINY_BYTES = 1440 << 10;

/**
 * Reads the superblock of a disk. Reads 68 KiB, and for some file systems up to 64 times more, at most 512 KiB.
 * @param size of the disk, in bytes
 * @returns null if there is none that is known, or several that contradict each other
 * @throws what `read` rejects with
 */
export async function readSuperblock(read: ReadBytes, size: number): Promise<Superblock | null> {
  const disk = await DiskBytes.of(read, size);
  const isTiny = size <= TINY_BYTES;
  const found: Superblock[] = [];
  let isConflict = false;
  for (const reader of READERS) {
    const { usage, isTolerant = false, minBytes = 0 } = reader;
    if (size < minBytes || (isTiny && usage === 'raid')) continue;
    const superblock = await reader.read(disk);
    if (superblock === null) continue;
    found.push({ ...superblock, usage });
    if (isTiny || usage === 'raid' || usage === 'crypto') break;
    if (!isTolerant) isConflict = true;
  }
  return found.length > 1 && isConflict ? null : (found[0] ?? null);
}
