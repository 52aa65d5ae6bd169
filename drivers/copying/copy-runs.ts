/**
 * Copies ranges of data in chunks, several chunks at the same time.
 */
import { allDone } from '../all-done.js';
import type { Disk } from '../driver.js';
import type { Run } from './zero-pages.js';

const CHUNK_BYTES = 1 << 20;
const COPIERS = 2;

export interface CopyOptions {
  /** aborts the copy */
  readonly signal: AbortSignal;
  progress(doneBytes: number, totalBytes: number): void;
}

/** extents are asked for in ranges of this size, because a driver may be slow to find them */
const LOOK_BYTES = 2 ** 32;

/** The ranges of a disk that are data. @throws the signal's reason when aborted */
export async function dataRuns(disk: Pick<Disk, 'size' | 'extents'>, signal: AbortSignal): Promise<Run[]> {
  const runs: Run[] = [];
  for (let at = 0; at < disk.size; at += LOOK_BYTES) {
    signal.throwIfAborted();
    for (const { offset, length, hole } of await disk.extents(at, Math.min(LOOK_BYTES, disk.size - at))) {
      if (!hole) runs.push([offset, offset + length]);
    }
  }
  return runs;
}

/** The sum of the lengths of the ranges, in bytes. */
export function lengthOf(runs: readonly Run[]): number {
  return runs.reduce((sum, [from, to]) => sum + to - from, 0);
}

/**
 * Calls `copyChunk` for each chunk of the ranges. Chunks end at multiples of 1 MiB.
 * @param copyChunk reads the chunk that starts at byte `from` into the buffer, which has its length, and writes it out
 * @throws the first error of `copyChunk`; the signal's reason when aborted. No chunk is under way any more then.
 */
export async function copyRuns(
  runs: readonly Run[],
  { signal, progress }: CopyOptions,
  copyChunk: (buffer: Buffer, from: number) => Promise<void>,
): Promise<void> {
  const totalBytes = lengthOf(runs);
  let doneBytes = 0;
  progress(doneBytes, totalBytes);
  const chunks = chunksOf(runs);
  const copier = async (): Promise<void> => {
    const buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES);
    // an error in this loop ends the shared generator, so the other copiers stop too
    for (const [from, to] of chunks) {
      signal.throwIfAborted();
      await copyChunk(buffer.subarray(0, to - from), from);
      doneBytes += to - from;
      progress(doneBytes, totalBytes);
    }
  };
  // the caller may close the descriptors when this returns, so wait until all copiers have ended
  await allDone(Array.from({ length: COPIERS }, copier));
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
