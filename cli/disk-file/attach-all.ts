/** Attaches the disks of a file: all of them, or none. */
import { defined } from '../../drivers/defined.js';
import { attach, type BusPlace, detach } from '../../mount/client/index.js';
import type { AttachResult } from '../../mount/control/interface.js';
import { withProgress } from '../progress-bar.js';
import { type ListedRequest, placed } from './read.js';

/**
 * Attaches one after another. If one fails, those attached before it are detached again: nobody knows of them yet.
 * @throws FusetapError the error of that attach, with the position of the disk in the file
 */
export async function attachAll(
  place: BusPlace,
  disks: readonly ListedRequest[],
  options: { quiet?: boolean },
): Promise<AttachResult[]> {
  const attached: AttachResult[] = [];
  for (const { where, request } of disks) {
    try {
      const vbd = await withProgress('copying', options, (progress) => attach(place, request, defined({ progress })));
      attached.push(vbd);
    } catch (error) {
      await detachAll(place, attached);
      throw placed(where, error);
    }
  }
  return attached;
}

async function detachAll(place: BusPlace, vbds: readonly AttachResult[]): Promise<void> {
  for (const { vdev } of [...vbds].reverse()) {
    // the error of the attach is more useful than one of the detach
    await detach(place, vdev, { force: true }).catch(() => {});
  }
}
