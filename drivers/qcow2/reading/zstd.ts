/**
 * Decodes zstd frames. A Node that has zstd decodes them in the libuv pool. An older one uses WebAssembly on the main thread:
 * about 0.2 ms for 64 KiB, 5 ms for 2 MiB.
 *
 * The end of a stream is not known, because bytes of others follow it. So the headers of a frame and of its blocks are read
 * here first, and the decoders are given one frame each. (Node 22 stops after the first of several frames.)
 *
 *      frame    magic 4   descriptor 1   window 0–1   dictionary 0–4   size 0–8   blocks   checksum 0–4
 *      block    header 3: bit 0 last, 1–2 type, 3–23 bytes
 */
import type { Transform } from 'node:stream';
import zlib from 'node:zlib';
import { ZSTDDecoder } from 'zstddec';

const MAGIC = 0xfd2fb528;
/** 16 numbers from here on: a frame of other data */
const SKIPPABLE = 0x184d2a50;
const DICTIONARY_BYTES = [0, 1, 2, 4] as const;
const SIZE_BYTES = [0, 2, 4, 8] as const;
/** a block of one repeated byte */
const REPEATED = 1;
/** as in libzstd by default, and so in QEMU; a decoder fills only as much of a window as the frame has bytes */
const MOST_WINDOW_BYTES = 2 ** 27;
/** a bound for the time of a stream whose blocks are empty: writers put up to 128 KiB into a block */
const MOST_BLOCKS = 4096;
/** room for bytes that a frame has too many: without it, Node would need a second call to see the end of a frame */
const SPARE_BYTES = 64;

/** @throws Error if the stream does not have exactly `length` bytes in whole frames */
export async function unzstd(stream: Buffer, length: number): Promise<Buffer> {
  const parts: Buffer[] = [];
  let missing = length;
  let allBlocks = 0;
  for (let at = 0; missing > 0; ) {
    const { end, blocks } = frameAt(stream, at);
    allBlocks += Math.max(1, blocks);
    if (end > stream.length || allBlocks > MOST_BLOCKS) throw new Error('a frame does not end');
    if (blocks > 0) {
      const part = await decodeFrame(stream.subarray(at, end), missing);
      parts.push(part);
      missing -= part.length;
    }
    at = end;
  }
  if (missing < 0) throw new Error('a frame has too many bytes');
  const [only] = parts;
  return only !== undefined && parts.length === 1 ? only : Buffer.concat(parts);
}

interface Frame {
  readonly end: number;
  /** 0: it has other data, to be left out */
  readonly blocks: number;
}

/** @throws RangeError if it ends within the headers; Error if it is no frame */
function frameAt(stream: Buffer, start: number): Frame {
  const magic = stream.readUInt32LE(start);
  if ((magic & 0xffff_fff0) >>> 0 === SKIPPABLE) {
    return { end: start + 8 + stream.readUInt32LE(start + 4), blocks: 0 };
  }
  if (magic !== MAGIC) throw new Error('there is no frame');
  const descriptor = stream.readUInt8(start + 4);
  const isSingleSegment = (descriptor & 0x20) !== 0;
  if (!isSingleSegment) checkWindow(stream.readUInt8(start + 5));
  const sizeCode = descriptor >> 6;
  const sizeBytes = isSingleSegment && sizeCode === 0 ? 1 : (SIZE_BYTES[sizeCode] ?? 0);
  const dictionaryBytes = DICTIONARY_BYTES[descriptor & 3] ?? 0;
  let at = start + 5 + (isSingleSegment ? 0 : 1) + dictionaryBytes + sizeBytes;
  let blocks = 0;
  for (let isLast = false; !isLast && blocks <= MOST_BLOCKS; blocks += 1) {
    const header = stream.readUIntLE(at, 3);
    isLast = (header & 1) !== 0;
    at += 3 + (((header >> 1) & 3) === REPEATED ? 1 : header >> 3);
  }
  const hasChecksum = (descriptor & 4) !== 0;
  return { end: at + (hasChecksum ? 4 : 0), blocks };
}

function checkWindow(descriptor: number): void {
  const base = 2 ** (10 + (descriptor >> 3));
  const bytes = base + (base / 8) * (descriptor & 7);
  if (bytes > MOST_WINDOW_BYTES) throw new Error(`a frame has a window of ${bytes} bytes`);
}

/** @returns at most `most + SPARE_BYTES` bytes */
type DecodeFrame = (frame: Buffer, most: number) => Promise<Buffer>;

const decodeFrame: DecodeFrame = hasZstd(zlib) ? decodeInPool(zlib) : decodeHere;

/** From Node 22.15 on. */
interface ZlibWithZstd {
  createZstdDecompress(options: { chunkSize: number }): Transform;
}

function hasZstd(module: object): module is ZlibWithZstd {
  return 'createZstdDecompress' in module;
}

function decodeInPool({ createZstdDecompress }: ZlibWithZstd): DecodeFrame {
  return (frame, most) =>
    new Promise((resolve, reject) => {
      const decoder = createZstdDecompress({ chunkSize: most + SPARE_BYTES });
      // all bytes come at once; a frame with still more of them is not waited for
      decoder.once('data', (bytes: Buffer) => {
        decoder.destroy();
        resolve(bytes);
      });
      decoder.once('end', () => resolve(Buffer.alloc(0)));
      decoder.once('error', reject);
      decoder.end(frame);
    });
}

let loading: Promise<ZSTDDecoder> | undefined;

async function load(): Promise<ZSTDDecoder> {
  const decoder = new ZSTDDecoder();
  await decoder.init();
  return decoder;
}

async function decodeHere(frame: Buffer, most: number): Promise<Buffer> {
  loading ??= load();
  const decoder = await loading;
  // no bytes: an error of the decoder
  const { buffer, byteOffset, byteLength } = decoder.decode(frame, most);
  return Buffer.from(buffer, byteOffset, byteLength);
}
