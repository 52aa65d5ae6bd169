/**
 * Requests for disks that are not windows, on the event loop: the driver gives the same answers as serve-window.ts.
 * Every function resolves to the body of the reply, or rejects with the error to answer.
 */
import { constants } from 'node:os';
import type { Disk } from '../../../drivers/disk.js';
import { FusetapError } from '../../../drivers/errors.js';
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  FALLOC_FL_ZERO_RANGE,
  SEEK_DATA,
  SEEK_HOLE,
} from '../../../system/libc.js';
import { DISCARD, FLUSH, NOT_COUNTED, READ, WRITE } from '../../ledger/counters.js';
import { writesDurably } from '../../transport/file-rules.js';
import * as abi from '../protocol/abi.js';
import type { Request } from '../protocol/message.js';

const { errno } = constants;

function refuse(code: 'FAILED' | 'NO_SPACE' | 'UNSUPPORTED', message: string, number: number): FusetapError {
  return new FusetapError(code, message, { errno: number });
}

/** A field in bytes. The kernel sends offsets up to 2^63 − 1; those beyond 2^53 are all past the end of every disk. */
function bytesOf(request: Request, word: number): number {
  return Math.min(request.bodyU64(word), Number.MAX_SAFE_INTEGER);
}

/** The kind of request in the counters. */
export function kindOf(request: Request): number {
  switch (request.opcode) {
    case abi.READ:
      return READ;
    case abi.WRITE:
      return WRITE;
    case abi.FSYNC:
      return FLUSH;
    case abi.FALLOCATE:
      return (request.bodyU32(abi.FALLOCATE_MODE) & ~FALLOC_FL_KEEP_SIZE) === 0 ? NOT_COUNTED : DISCARD;
    default:
      return NOT_COUNTED;
  }
}

/** How many bytes of a disk of that size a WRITE or FALLOCATE covers; 0 for other requests. */
export function rangeOf(request: Request, diskBytes: number): number {
  const inside = (offset: number, length: number): number => Math.max(0, Math.min(length, diskBytes - offset));
  switch (request.opcode) {
    case abi.WRITE:
      return inside(bytesOf(request, abi.RW_OFFSET), request.bodyU32(abi.RW_SIZE));
    case abi.FALLOCATE:
      return inside(bytesOf(request, abi.FALLOCATE_OFFSET), bytesOf(request, abi.FALLOCATE_LENGTH));
    default:
      return 0;
  }
}

/** READ: how many bytes are asked for. */
export function readLength(request: Request): number {
  return Math.min(request.bodyU32(abi.RW_SIZE), abi.MAX_WRITE);
}

/** READ: how many bytes were read, fewer at the end of the disk. @param room where to read them to, with room for all */
export function readDisk(disk: Disk, request: Request, room: Buffer): Promise<number> {
  return disk.read(room.subarray(0, readLength(request)), bytesOf(request, abi.RW_OFFSET));
}

/** WRITE: the number of bytes written. */
export function writeDisk(disk: Disk, request: Request): Promise<number> {
  const start = abi.IN_HEADER_SIZE + abi.RW_IN_SIZE;
  const data = request.bytes.subarray(start, start + request.bodyU32(abi.RW_SIZE));
  const durable = writesDurably(request.bodyU32(abi.RW_FLAGS));
  return disk.write(data, bytesOf(request, abi.RW_OFFSET), { durable });
}

/** FALLOCATE. */
export async function allocateDisk(disk: Disk, request: Request): Promise<void> {
  const offset = bytesOf(request, abi.FALLOCATE_OFFSET);
  const length = bytesOf(request, abi.FALLOCATE_LENGTH);
  switch (request.bodyU32(abi.FALLOCATE_MODE)) {
    case 0:
    case FALLOC_FL_KEEP_SIZE:
      if (disk.readOnly) throw new FusetapError('DENIED', 'the vbd is read-only', { errno: errno.EROFS });
      if (offset + length > disk.size) throw refuse('NO_SPACE', 'beyond the end of the disk', errno.ENOSPC);
      // such a driver cannot reserve space, and an honest error is better than a false success
      throw refuse('UNSUPPORTED', 'the driver cannot allocate', errno.EOPNOTSUPP);
    case FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE:
      return disk.zero(offset, length, { punch: true, durable: false });
    case FALLOC_FL_ZERO_RANGE:
    case FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE:
      return disk.zero(offset, length, { punch: false, durable: false });
    default:
      throw refuse('UNSUPPORTED', 'no such fallocate mode', errno.EOPNOTSUPP);
  }
}

/**
 * The range of one call of extents, which may be slow in a driver: most often the next run is near, and each call looks at
 * four times as much as the one before.
 */
const FIRST_SEEK_BYTES = 1 << 20;
const MOST_SEEK_BYTES = 1 << 30;

/** LSEEK with SEEK_DATA or SEEK_HOLE: the position found. The end of the disk counts as a hole. */
export async function seekDisk(disk: Disk, request: Request): Promise<number> {
  const whence = request.bodyU32(abi.LSEEK_WHENCE);
  if (whence !== SEEK_DATA && whence !== SEEK_HOLE) throw refuse('FAILED', 'no such whence', errno.EINVAL);
  let position = request.bodyU64(abi.LSEEK_OFFSET);
  if (position >= disk.size) throw refuse('FAILED', 'beyond the end of the disk', errno.ENXIO);
  for (let step = FIRST_SEEK_BYTES; position < disk.size; step = Math.min(4 * step, MOST_SEEK_BYTES)) {
    const extents = await disk.extents(position, Math.min(step, disk.size - position));
    for (const extent of extents) {
      if (extent.hole === (whence === SEEK_HOLE)) return Math.max(extent.offset, position);
      position = extent.offset + extent.length;
    }
  }
  if (whence === SEEK_HOLE) return disk.size;
  throw refuse('FAILED', 'no more data', errno.ENXIO);
}
