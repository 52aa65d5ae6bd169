/**
 * The ioctls of block devices that a file can answer, for programs that treat a vbd as a block device.
 *
 * For a FUSE file, the kernel copies an answer to the caller only if the ioctl number contains the size of the answer
 * (linux/ioctl.h). BLKSSZGET, BLKPBSZGET, BLKROGET, BLKGETSIZE, BLKIOMIN and BLKIOOPT contain no size, so no FUSE file
 * can answer them.
 */
import type { Disk } from '../../../drivers/disk.js';

/** bytes of the device, u64 */
const BLKGETSIZE64 = 0x80081272;
/** block size, int; its number contains the size of a size_t, which the kernel's own drivers do not fill either */
const BLKBSZGET = 0x80081270;
const BLOCK_BYTES = 4096;

/** @returns the bytes of the answer; null if the file does not support the ioctl */
export function blockIoctl(command: number, disk: Pick<Disk, 'size'>): Buffer | null {
  if (command === BLKGETSIZE64) {
    const answer = Buffer.alloc(8);
    answer.writeBigUInt64LE(BigInt(disk.size));
    return answer;
  }
  if (command === BLKBSZGET) {
    const answer = Buffer.alloc(4);
    answer.writeUInt32LE(BLOCK_BYTES);
    return answer;
  }
  return null;
}
