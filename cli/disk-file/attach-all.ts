/** Attaches the disks of a file: all of them, or none. */
import { attach, type BusPlace, detach } from '../../mount/client/index.js';
import type { AttachResult } from '../../mount/control/interface.js';
import { withProgress } from '../progress-bar.js';
import { type ListedRequest, placed } from './read.js';

/**
 * One after another. Where one fails, those that were attached before it are detached again: nobody was told of them.
 * @throws FusetapError what the attach of that disk threw, with its place in the file
 */
export async function attachAll(
  place: BusPlace,
  disks: readonly ListedRequest[],
  options: { quiet?: boolean },
): Promise<AttachResult[]> {
  const attached: AttachResult[] = [];
  for (const { where, request } of disks) {
    try {
      const vbd = await withProgress('copying', options, (progress) =>
        attach(place, request, { ...(progress && { progress }) }),
      );
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
    // why the attach failed is worth more than what went wrong afterwards
    await detach(place, vdev, { force: true }).catch(() => {});
  }
}
