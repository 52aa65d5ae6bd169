/**
 * Ram images as a program sees them: what they take, a copy written out, a copy made afresh.
 */
import { call } from '../control/call.js';
import type { MemoryInfo, SaveResult, VbdInfo } from '../control/interface.js';
import type { Progress } from '../control/progress.js';
import type { BusPlace } from '../runtime/bus-place.js';

export interface CopyOptions {
  /** gives up: nothing is left of the copy */
  readonly signal?: AbortSignal;
  readonly progress?: Progress;
}

/** The ram images of all buses of a runtime directory, and how much they may take; no bus is asked. */
export async function memory(runtimeDir: string): Promise<MemoryInfo> {
  const { describeMemory } = await import('../ram/describe-memory.js');
  return describeMemory(runtimeDir);
}

/**
 * Makes a file a consistent copy of a vbd, in one step.
 * @param target path absolute; force: it may take the place of a file
 * @throws FusetapError BUSY where the file is there, or in use, or what is written cannot be held; NO_SPACE
 */
export function save(
  place: BusPlace,
  vdev: string,
  target: { path: string; force: boolean },
  options: CopyOptions = {},
): Promise<SaveResult> {
  return call(place, 'POST /vbds/{vdev}/save', { vdev, body: target, ...options });
}

/** Copies the image of a ram vbd afresh. @throws FusetapError BUSY where anybody holds it, or shares it */
export function reset(place: BusPlace, vdev: string, options: CopyOptions = {}): Promise<VbdInfo> {
  return call(place, 'POST /vbds/{vdev}/reset', { vdev, ...options });
}
