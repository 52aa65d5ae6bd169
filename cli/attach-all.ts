/** Attaches disks for a command: all of them, or none; with a progress bar, and remarks on stderr. */
import { defined } from '../drivers/defined.js';
import { attach, type BusPlace, detach, type Lifeline } from '../mount/client/index.js';
import type { AttachResult, VbdInfo } from '../mount/control/interface.js';
import { atPlace, type ListedDisk, placed } from './listed-disk.js';
import { printNote } from './output.js';
import { withProgress } from './progress-bar.js';

export interface AttachAllOptions {
  quiet?: boolean;
  verbose?: boolean;
  /** cancels it */
  signal?: AbortSignal;
  lifeline?: Lifeline;
  /** undoes the attaches before one that failed; default: detaches them */
  undo?(attached: readonly VbdInfo[]): Promise<void>;
}

/**
 * Attaches one after another, because a vbd without a vdev takes the first free one.
 * @throws FusetapError the error of an attach, with the place of its disk; the disks before it are detached then
 */
export async function attachAll(
  place: BusPlace,
  disks: readonly ListedDisk[],
  { quiet = false, verbose = false, undo = (attached) => detachAll(place, attached), ...options }: AttachAllOptions,
): Promise<VbdInfo[]> {
  if (verbose) for (const { where, notes } of disks) for (const note of notes) printNote(atPlace(where, note));
  const { signal, lifeline } = options;
  const attached: AttachResult[] = [];
  for (const { where, request } of disks) {
    try {
      signal?.throwIfAborted();
      const work = withProgress('copying', { quiet }, (progress) =>
        attach(place, request, defined({ progress, signal, lifeline })),
      );
      attached.push(await work);
    } catch (error) {
      await undo(attached);
      throw placed(where, error);
    }
  }
  return attached.map(({ notes = [], ...vbd }, index) => {
    if (!quiet) for (const note of notes) printNote(atPlace(disks[index]?.where ?? null, note));
    return vbd;
  });
}

async function detachAll(place: BusPlace, vbds: readonly VbdInfo[]): Promise<void> {
  for (const { vdev } of [...vbds].reverse()) {
    // the error of the attach is more useful than one of the detach
    await detach(place, vdev, { force: true }).catch(() => {});
  }
}
