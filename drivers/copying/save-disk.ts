/**
 * Copies a disk of any driver and filters to a file or a stream. To a file, only data is copied, so the copy has the
 * holes of the disk, and pages of zeros become holes too.
 *
 * The caller must see to it that nobody writes to the disk meanwhile.
 */
import { fsync, ftruncate } from 'node:fs';
import { promisify } from 'node:util';
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { writeFully } from '../file-io.js';
import { type CopyOptions, copyRuns, dataRuns } from './copy-runs.js';
import { nonZeroPages } from './zero-pages.js';

const ftruncateAsync = promisify(ftruncate);
const fsyncAsync = promisify(fsync);

/** how much is read at a time for a stream */
const STREAM_BYTES = 1 << 20;

/**
 * Copies the disk into an empty file and makes the copy durable.
 * @param fd of the file, open for writing
 * @throws FusetapError NO_SPACE if the file system is full, else the code of the errno; the signal's reason when
 *   aborted. The file is then incomplete.
 */
export async function saveDisk(disk: Disk, fd: number, { signal, progress }: CopyOptions): Promise<void> {
  await ftruncateAsync(fd, disk.size);
  const runs = await dataRuns(disk, signal);
  await copyRuns(runs, { signal, progress }, (chunk, from) => copyChunk(disk, fd, chunk, from));
  await fsyncAsync(fd);
}

async function copyChunk(disk: Disk, fd: number, chunk: Buffer, from: number): Promise<void> {
  const n = await disk.read(chunk, from);
  if (n !== chunk.byteLength) throw new FusetapError('FAILED', `the disk ended at byte ${from + n}`, { offset: from });
  for (const [start, end] of nonZeroPages(chunk)) await writeFully(fd, chunk.subarray(start, end), from + start);
}

/**
 * Writes all bytes of the disk to a stream, from the first to the last. Holes are written as zeros.
 * @param write resolves when it does not need the bytes any more
 * @throws errors of the disk and of `write`; the signal's reason when aborted
 */
export async function streamDisk(
  disk: Disk,
  write: (bytes: Uint8Array) => Promise<void>,
  { signal, progress }: CopyOptions,
): Promise<void> {
  // one is filled while the other is written
  const buffers = [Buffer.allocUnsafeSlow(STREAM_BYTES), Buffer.allocUnsafeSlow(STREAM_BYTES)] as const;
  let written: Promise<void> = Promise.resolve();
  progress(0, disk.size);
  for (let at = 0, turn = 0; at < disk.size; at += STREAM_BYTES, turn ^= 1) {
    signal.throwIfAborted();
    const chunk = (buffers[turn] as Buffer).subarray(0, Math.min(STREAM_BYTES, disk.size - at));
    const n = await disk.read(chunk, at);
    if (n !== chunk.byteLength) throw new FusetapError('FAILED', `the disk ended at byte ${at + n}`, { offset: at });
    await written;
    const end = at + n;
    written = write(chunk).then(() => progress(end, disk.size));
    // an error is thrown by the await above or below
    written.catch(() => {});
  }
  await written;
}
