/**
 * Copying what a disk holds: runs of data in chunks, several of them under way at once.
 */
import type { Run } from './zero-pages.js';

const CHUNK_BYTES = 1 << 20;
const COPIERS = 2;

export interface CopyOptions {
  /** aborted when the copy is given up */
  readonly signal: AbortSignal;
  progress(doneBytes: number, totalBytes: number): void;
}

/** How many bytes the runs have together. */
export function lengthOf(runs: readonly Run[]): number {
  return runs.reduce((sum, [from, to]) => sum + to - from, 0);
}

/**
 * Calls `copyChunk` for each chunk of the runs. Chunks end where a multiple of 1 MiB does.
 * @param copyChunk is to fill the buffer, whose length is the chunk's, from that byte on, and put it where it belongs
 * @throws what `copyChunk` throws first; the signal's reason when aborted. No chunk is under way any more then.
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
    // an error thrown out of this loop ends the generator, so the other copiers stop too
    for (const [from, to] of chunks) {
      signal.throwIfAborted();
      await copyChunk(buffer.subarray(0, to - from), from);
      doneBytes += to - from;
      progress(doneBytes, totalBytes);
    }
  };
  // the descriptors are given back when this returns, so nobody may still be at work
  const ends = await Promise.allSettled(Array.from({ length: COPIERS }, copier));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
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
