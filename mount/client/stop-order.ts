/** The order in which to stop several buses: a bus whose images lie on another bus comes before that bus. */
import { readMounts } from '../../system/proc.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { readBusRecord } from '../runtime/bus-record.js';

/**
 * Orders buses so that each comes before the buses that have its images. Reads records only, because a bus may hang.
 */
export async function orderToStop(places: readonly BusPlace[]): Promise<BusPlace[]> {
  const mounts = await readMounts('self');
  const buses = places.map((place) => ({
    place,
    dev: mounts.findLast(({ mountpoint }) => mountpoint === place.path)?.dev ?? null,
    // an identity is `MAJ:MIN:INODE`, with the numbers of the file system that the image is on
    imageDevs: (readBusRecord(place.stateDir)?.vbds ?? []).map(({ identity }) => identity?.replace(/:[^:]*$/, '')),
  }));
  const ordered = new Set<BusPlace>();
  const visited = new Set<BusPlace>();
  const visit = ({ place, dev }: (typeof buses)[number]): void => {
    if (visited.has(place)) return;
    visited.add(place);
    if (dev !== null) for (const upper of buses.filter(({ imageDevs }) => imageDevs.includes(dev))) visit(upper);
    ordered.add(place);
  };
  buses.forEach(visit);
  return [...ordered];
}
