/**
 * Copies a disk of any driver and filters to a file. Only data is copied, so the copy has the holes of the disk, and
 * pages of zeros become holes too.
 *
 * The caller must see to it that nobody writes to the disk meanwhile.
 */
import { fsync, ftruncate } from 'node:fs';
import { promisify } from 'node:util';
import type { Disk } from './disk.js';
import { FusetapError } from './errors.js';
import { writeFully } from './file-io.js';
import { nonZeroPages, type Run } from './zero-pages.js';

const ftruncateAsync = promisify(ftruncate);
const fsyncAsync = promisify(fsync);

const CHUNK_BYTES = 1 << 20;
const COPIERS = 2;
/** extents are asked for in ranges of this size, because a driver may be slow to find them */
const LOOK_BYTES = 2 ** 32;

export interface SaveOptions {
  /** aborts the copy */
  readonly signal: AbortSignal;
  progress(doneBytes: number, totalBytes: number): void;
}

/**
 * Copies the disk into an empty file and makes the copy durable.
 * @param fd of the file, open for writing
 * @throws FusetapError NO_SPACE if the file system is full, else the code of the errno; the signal's reason when
 *   aborted. The file is then incomplete.
 */
export async function saveDisk(disk: Disk, fd: number, { signal, progress }: SaveOptions): Promise<void> {
  await ftruncateAsync(fd, disk.size);
  const runs = await dataRuns(disk, signal);
  const totalBytes = runs.reduce((sum, [from, to]) => sum + to - from, 0);
  let doneBytes = 0;
  progress(doneBytes, totalBytes);
  const chunks = chunksOf(runs);
  const copier = async (): Promise<void> => {
    const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    // an error in this loop ends the shared generator, so the other copiers stop too
    for (const [from, to] of chunks) {
      signal.throwIfAborted();
      await copyChunk(disk, fd, buffer.subarray(0, to - from), from);
      doneBytes += to - from;
      progress(doneBytes, totalBytes);
    }
  };
  // the caller may close the descriptor when this returns, so wait until all copiers have ended
  const ends = await Promise.allSettled(Array.from({ length: COPIERS }, copier));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
  await fsyncAsync(fd);
}

async function dataRuns(disk: Disk, signal: AbortSignal): Promise<Run[]> {
  const runs: Run[] = [];
  for (let at = 0; at < disk.size; at += LOOK_BYTES) {
    signal.throwIfAborted();
    for (const { offset, length, hole } of await disk.extents(at, Math.min(LOOK_BYTES, disk.size - at))) {
      if (!hole) runs.push([offset, offset + length]);
    }
  }
  return runs;
}

function* chunksOf(runs: readonly Run[]): Generator<Run> {
  for (const [from, to] of runs) {
    for (let at = from; at < to; ) {
      const next = Math.min(to, at - (at % CHUNK_BYTES) + CHUNK_BYTES);
      yield [at, next];
      at = next;
    }
  }
}

async function copyChunk(disk: Disk, fd: number, chunk: Buffer, from: number): Promise<void> {
  const n = await disk.read(chunk, from);
  if (n !== chunk.byteLength) throw new FusetapError('FAILED', `the disk ended at byte ${from + n}`, { offset: from });
  for (const [start, end] of nonZeroPages(chunk)) await writeFully(fd, chunk.subarray(start, end), from + start);
}
