/**
 * Ram images: their memory, saving a copy, and the reset to their image.
 */
import { call } from '../control/call.js';
import { sentDisk } from '../control/disk-wish.js';
import type { DiskWish, MemoryInfo, SaveResult, VbdInfo } from '../control/interface.js';
import type { Progress } from '../control/progress.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { withFoundDrivers } from './disk-wish.js';
import { workingDirectory } from './finding/working-directory.js';

export interface CopyOptions {
  /** cancels the copy; nothing remains of it */
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

/** The ram images of all buses of a runtime directory, and their memory limit. Asks no bus. */
export async function memory(runtimeDir: string): Promise<MemoryInfo> {
  const { describeMemory } = await import('../ram/describe-memory.js');
  return describeMemory(runtimeDir);
}

/**
 * Writes a consistent copy of a vbd to a disk of the same size.
 * @param target to: the disk, whose driver may be a file or package as for attach; force: the data that is on it may be lost
 * @throws FusetapError USAGE if the size differs; BUSY if the disk is in use or has data, or if writes to the vbd cannot
 *   be paused; errors of an attach
 */
export async function saveToDisk(
  place: BusPlace,
  vdev: string,
  target: { to: DiskWish; force: boolean },
  options: CopyOptions = {},
): Promise<SaveResult> {
  const to = sentDisk(withFoundDrivers(target.to, workingDirectory));
  const { force } = target;
  return await call(place, 'POST /vbds/{vdev}/save', { vdev, body: { to, force }, ...options });
}

/**
 * Writes a consistent copy of a vbd to a file. The file appears in one step.
 * @param target path: absolute; force: replace the file if it exists
 * @throws FusetapError BUSY if the file exists or is in use, or if writes to the vbd cannot be paused; NO_SPACE
 */
export function save(
  place: BusPlace,
  vdev: string,
  target: { path: string; force: boolean },
  options: CopyOptions = {},
): Promise<SaveResult> {
  return call(place, 'POST /vbds/{vdev}/save', { vdev, body: target, ...options });
}

/** Discards the changes of a ram vbd: copies its image again. @throws FusetapError BUSY if it is in use or shared */
export function reset(place: BusPlace, vdev: string, options: CopyOptions = {}): Promise<VbdInfo> {
  return call(place, 'POST /vbds/{vdev}/reset', { vdev, ...options });
}
