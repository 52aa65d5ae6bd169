/**
 * Writes all bytes of a disk, from the first to the last, to a stream. Holes are written as zeros.
 *
 * The caller must see to it that nobody writes to the disk meanwhile.
 */
import type { CopyOptions } from './copy-runs.js';
import type { Disk } from './disk.js';
import { FusetapError } from './errors.js';

const CHUNK_BYTES = 1 << 20;

/**
 * @param write resolves when it does not need the bytes any more
 * @throws errors of the disk and of `write`; the signal's reason when aborted
 */
export async function streamDisk(
  disk: Disk,
  write: (bytes: Uint8Array) => Promise<void>,
  { signal, progress }: CopyOptions,
): Promise<void> {
  // one is filled while the other is written
  const buffers = [Buffer.allocUnsafeSlow(CHUNK_BYTES), Buffer.allocUnsafeSlow(CHUNK_BYTES)] as const;
  let written: Promise<void> = Promise.resolve();
  progress(0, disk.size);
  for (let at = 0, turn = 0; at < disk.size; at += CHUNK_BYTES, turn ^= 1) {
    signal.throwIfAborted();
    const chunk = (buffers[turn] as Buffer).subarray(0, Math.min(CHUNK_BYTES, disk.size - at));
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
