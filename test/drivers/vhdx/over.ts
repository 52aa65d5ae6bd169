/** VHDX images in memory, and their disks. */
import type { Disk } from '../../../drivers/disk.js';
import { frontDisk } from '../../../drivers/disk.js';
import vhdx from '../../../drivers/vhdx/index.js';
import { contextOver } from '../formats/image-bytes.js';
import { batEntry, type VhdxFields, vhdxBytes } from '../images/vhdx.js';

export const MIB = 1 << 20;

/** A disk of 3 MiB in blocks of 1 MiB, which are there, zeros, and there, at 4 and 5 MiB. */
export const PLAIN: VhdxFields = { size: 3 * MIB, bat: [batEntry(6, 4), batEntry(2), batEntry(6, 5)] };

/** The blocks have the bytes 1 and 2. */
export function plainImage(fields: Partial<VhdxFields> = {}): Buffer {
  const bytes = vhdxBytes({ ...PLAIN, ...fields }, 2 * MIB);
  return bytes.fill(1, 4 * MIB, 5 * MIB).fill(2, 5 * MIB, 6 * MIB);
}

export async function openBytes(bytes: Buffer): Promise<Disk> {
  return frontDisk(await vhdx.open({ ...contextOver(bytes), readOnly: true }), { readOnly: true });
}

/** The byte at each place. */
export async function bytesAt(disk: Disk, places: readonly number[]): Promise<number[]> {
  const found: number[] = [];
  for (const place of places) {
    const byte = Buffer.alloc(1);
    await disk.read(byte, place);
    found.push(byte[0] as number);
  }
  return found;
}
