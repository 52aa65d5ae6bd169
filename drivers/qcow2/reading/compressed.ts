/** Decodes a compressed cluster. The bytes of a stream are hostile input: whatever they are, memory and time are bounded. */
import { constants } from 'node:os';
import { createInflateRaw, constants as zlib } from 'node:zlib';
import type { Disk } from '../../disk.js';
import { FusetapError } from '../../errors.js';
import { broken } from '../../formats/faults.js';
import { readUpTo } from '../../formats/read.js';
import type { ClusterEntry } from '../format/entries.js';
import { FORMAT, type Header } from '../format/header.js';
import { unzstd } from './zstd.js';

export type Codec = Pick<Header, 'compression' | 'clusterBytes'>;

export type Stream = Pick<ClusterEntry, 'place' | 'streamBytes'>;

/** Reads and decodes one cluster. @throws as decodeCluster; errors of the image */
export async function readCluster(image: Disk, { place, streamBytes }: Stream, codec: Codec): Promise<Buffer> {
  return await decodeCluster(await readUpTo(image, place, streamBytes), codec, place);
}

/**
 * Decodes one cluster.
 * @param stream may end too late: the bytes after the stream belong to others. It ends early at the end of the image
 * @param place of the stream in the image, for the error
 * @returns exactly `clusterBytes` bytes
 * @throws FusetapError FAILED, errno EIO, if the stream is damaged
 */
export async function decodeCluster(
  stream: Buffer,
  { compression, clusterBytes }: Codec,
  place: number,
): Promise<Buffer> {
  try {
    const decode = compression === 'zstd' ? unzstd : inflate;
    const cluster = await decode(stream, clusterBytes);
    if (cluster.length === clusterBytes) return cluster;
    throw new Error(`it has ${cluster.length} bytes`);
  } catch (cause) {
    const { code, message, hint } = broken(FORMAT, `the compressed cluster at byte ${place} cannot be decoded`);
    throw new FusetapError(code, message, { hint, errno: constants.errno.EIO, operation: 'read', cause });
  }
}

/**
 * Decodes a raw deflate stream, up to `length` bytes of it: as in QEMU, a stream may have more.
 * @returns fewer bytes if the stream has fewer
 */
function inflate(stream: Buffer, length: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    // QEMU's streams have windows of 12 bits; 15 bits read all. Z_SYNC_FLUSH: a stream without its end is not an error
    const inflater = createInflateRaw({ chunkSize: length, windowBits: 15, finishFlush: zlib.Z_SYNC_FLUSH });
    // the first chunk has all that fits; destroy: the rest is not decoded
    inflater.once('data', (bytes: Buffer) => {
      inflater.destroy();
      resolve(bytes);
    });
    inflater.once('end', () => resolve(Buffer.alloc(0)));
    inflater.once('error', reject);
    inflater.end(stream);
  });
}
