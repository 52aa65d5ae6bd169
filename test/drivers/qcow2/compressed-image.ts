/** Compressed images that QEMU makes, and their streams. */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { frontDisk } from '../../../drivers/disk.js';
import { parseL1, parseL2 } from '../../../drivers/qcow2/format/entries.js';
import { type Header, l2EntryBytes, readHeader } from '../../../drivers/qcow2/format/header.js';
import type { Stream } from '../../../drivers/qcow2/reading/compressed.js';
import { bufferDisk } from '../../conformance/buffer-disk.js';
import { qemuImg } from '../qemu.js';

export interface CompressedImage {
  /** the bytes of the image */
  readonly bytes: Buffer;
  readonly header: Header;
  /** the bytes of the disk */
  readonly disk: Buffer;
  readonly streams: readonly GuestStream[];
}

/** A stream, and the cluster of the disk that it has. */
export interface GuestStream extends Stream {
  readonly cluster: number;
}

/** @param options as for qemu-img -o */
export async function compressedImage(directory: string, disk: Buffer, options: string): Promise<CompressedImage> {
  const [raw, image] = [join(directory, 'disk.img'), join(directory, 'disk.qcow2')];
  await writeFile(raw, disk);
  qemuImg('convert', '-c', '-f', 'raw', '-O', 'qcow2', '-o', options, raw, image);
  const bytes = await readFile(image);
  const header = await readHeader(frontDisk(bufferDisk(bytes), { readOnly: true }));
  return { bytes, header, disk, streams: [...streamsOf(bytes, header)] };
}

function* streamsOf(bytes: Buffer, header: Header): Generator<GuestStream> {
  const { l1, clusterBytes } = header;
  const entryBytes = l2EntryBytes(header);
  for (let i = 0; i < l1.entries; i += 1) {
    const at = l1.offset + 8 * i;
    const { place: l2 } = parseL1(bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4), clusterBytes);
    if (l2 === 0) continue;
    const table = bytes.subarray(l2, l2 + clusterBytes);
    for (let entry = 0; entry * entryBytes < clusterBytes; entry += 1) {
      const { kind, place, streamBytes } = parseL2(table, entry * entryBytes, header);
      if (kind !== 'compressed') continue;
      yield { place, streamBytes, cluster: i * (clusterBytes / entryBytes) + entry };
    }
  }
}

/** Bytes that can be compressed, but not to nothing: no two parts are the same. */
export function compressibleBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  let state = 1;
  for (let at = 0; at < length; at += 1) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    // runs of one byte, and text of 16 letters
    bytes[at] = (at >> 6) % 3 === 0 ? at >> 6 : 97 + (state >>> 28);
  }
  return bytes;
}
