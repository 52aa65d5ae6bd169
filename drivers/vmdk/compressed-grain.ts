/**
 * Reads a compressed grain. Its bytes are hostile input: memory and time are bounded by the size of a grain.
 *
 *      marker: 0  8  first sector of the grain in the disk   8  4  bytes of the stream   12  the stream (zlib)
 */
import { promisify } from 'node:util';
import { inflate } from 'node:zlib';
import type { Disk } from '../disk.js';
import { readUpTo } from '../formats/read.js';
import { SECTOR_BYTES } from './descriptor.js';
import { unreadable } from './grain-tables.js';
import type { SparseHeader } from './sparse-header.js';

const MARKER_BYTES = 12;
/** a stream of bytes that cannot be compressed is longer than the grain; QEMU has the same bound */
const MOST_STREAMS = 2;

const inflateAsync = promisify(inflate);

export interface GrainStream {
  /** in the image: the marker, if there is one */
  readonly place: number;
  /** the first byte of the grain in the extent */
  readonly start: number;
}

export type GrainShape = Pick<SparseHeader, 'grainBytes' | 'hasMarkers' | 'size'>;

/**
 * Reads and decodes a grain.
 * @returns the bytes of the grain that the extent has, or more
 * @throws FusetapError FAILED, errno EIO, if it is damaged
 */
export async function readGrain(image: Disk, grain: GrainStream, shape: GrainShape): Promise<Buffer> {
  const { place, start } = grain;
  const { grainBytes } = shape;
  const needed = Math.min(grainBytes, shape.size - start);
  const stream = shape.hasMarkers ? await readMarked(image, grain, shape) : await readUnmarked(image, grain, shape);
  let bytes: Buffer;
  try {
    // one step for all of it, so that it need not be copied
    bytes = await inflateAsync(stream, { maxOutputLength: grainBytes, chunkSize: grainBytes });
  } catch (cause) {
    throw unreadable(`the compressed grain at byte ${place} cannot be decoded`, cause);
  }
  if (bytes.length >= needed) return bytes;
  throw unreadable(`the compressed grain at byte ${place} has ${bytes.length} bytes, not ${needed}`);
}

async function readMarked(image: Disk, { place, start }: GrainStream, { grainBytes }: GrainShape): Promise<Buffer> {
  // most streams are shorter than the grain, so one read is enough
  const head = await readUpTo(image, place, MARKER_BYTES + grainBytes);
  if (head.length < MARKER_BYTES) throw isCut(place);
  const sector = head.readBigUInt64LE(0);
  if (sector !== BigInt(start / SECTOR_BYTES)) {
    throw unreadable(`the compressed grain at byte ${place} is of sector ${sector}, not ${start / SECTOR_BYTES}`);
  }
  const length = head.readUInt32LE(8);
  if (length === 0 || length > MOST_STREAMS * grainBytes) {
    throw unreadable(`the compressed grain at byte ${place} states a length of ${length} bytes`);
  }
  if (place + MARKER_BYTES + length > image.size) throw isCut(place);
  const end = MARKER_BYTES + length;
  return end <= head.length ? head.subarray(MARKER_BYTES, end) : await readUpTo(image, place + MARKER_BYTES, length);
}

/** The bytes after the stream belong to others. */
async function readUnmarked(image: Disk, { place }: GrainStream, { grainBytes }: GrainShape): Promise<Buffer> {
  return await readUpTo(image, place, MOST_STREAMS * grainBytes);
}

function isCut(place: number): Error {
  return unreadable(`the compressed grain at byte ${place} is cut off at the end of the file`);
}
