/** In which order several buses are stopped: a bus whose images are vbds of another goes before that one. */
import { readMounts } from '../../system/proc.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { readBusRecord } from '../runtime/bus-record.js';

/** The same buses, each before those that it has images on. Told from their records: a bus that hangs is not asked. */
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
