/**
 * Copies a disk to another one of the same size. The caller must see to it that nobody writes to the first meanwhile,
 * and nobody else to the second.
 */
import type { Disk } from '../disk.js';
import { FusetapError } from '../errors.js';
import { type CopyOptions, copyRuns, dataRuns } from './copy-runs.js';
import { nonZeroPages, type Run } from './zero-pages.js';

/** how much is zeroed at a time, so that a signal is seen */
const ZERO_BYTES = 64 << 20;

/**
 * Whether a disk that becomes a copy has data now, which the copy overwrites.
 * @throws FusetapError USAGE if the sizes differ; UNSUPPORTED if the target cannot be written
 */
export async function hasData(target: Disk, size: number, signal: AbortSignal): Promise<boolean> {
  refuseOther(target, size);
  return (await dataRuns(target, signal)).length > 0;
}

/**
 * Makes the target the same as the disk, durably. Where the disk has holes, the target gets holes if it can.
 * @throws FusetapError as hasData; errors of the disks; the signal's reason when aborted. The target may be incomplete then.
 */
export async function copyDisk(disk: Disk, target: Disk, options: CopyOptions): Promise<void> {
  const { signal } = options;
  const runs = await dataRuns(disk, signal);
  const isEmpty = !(await hasData(target, disk.size, signal));
  if (!isEmpty) for (const gap of gapsBetween(runs, disk.size)) await zeroRun(target, gap, signal);
  await copyRuns(runs, options, async (chunk, from) => {
    const n = await disk.read(chunk, from);
    if (n !== chunk.byteLength)
      throw new FusetapError('FAILED', `the disk ended at byte ${from + n}`, { offset: from });
    const pages: Iterable<Run> = isEmpty ? nonZeroPages(chunk) : [[0, chunk.byteLength]];
    for (const [start, end] of pages) await writeAll(target, chunk.subarray(start, end), from + start);
  });
  await target.flush();
}

function refuseOther(target: Disk, size: number): void {
  if (target.readOnly) {
    throw new FusetapError('UNSUPPORTED', 'the target cannot be written', { hint: 'choose another target' });
  }
  if (target.size === size) return;
  throw new FusetapError('USAGE', `the disk has ${size} bytes, but the target has ${target.size}`, {
    hint: `make it a target of ${size} bytes`,
  });
}

async function writeAll(target: Disk, bytes: Uint8Array, offset: number): Promise<void> {
  const n = await target.write(bytes, offset);
  if (n !== bytes.byteLength) throw new FusetapError('FAILED', `the target ended at byte ${offset + n}`, { offset });
}

async function zeroRun(target: Disk, [from, to]: Run, signal: AbortSignal): Promise<void> {
  for (let at = from; at < to; at += ZERO_BYTES) {
    signal.throwIfAborted();
    await target.zero(at, Math.min(ZERO_BYTES, to - at), { punch: true });
  }
}

/** What the ranges, which are in order, leave out. */
function* gapsBetween(runs: readonly Run[], size: number): Generator<Run> {
  let at = 0;
  for (const [from, to] of runs) {
    if (from > at) yield [at, from];
    at = to;
  }
  if (at < size) yield [at, size];
}
