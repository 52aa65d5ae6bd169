/** The vbds that have a ram image, read from the records of their buses: no bus is asked. */
import type { Holder } from '../../drivers/errors.js';
import type { BusRecord } from '../runtime/bus-record.js';
import type { RamLink } from './links.js';

/** The vbds of a link's process that have the ram image; only the process if its bus has no record of them. */
export function vbdsOf({ id, pid, bus }: RamLink, records: readonly BusRecord[]): Holder[] {
  const record = records.find(({ keeperPid, serverPid }) => keeperPid === pid || serverPid === pid);
  const vbds = record?.vbds.filter((vbd) => vbd.memory === id || vbd.memoriesBelow?.includes(id)) ?? [];
  return vbds.length === 0 ? [{ pid, bus }] : vbds.map(({ vdev }) => ({ pid, bus, vdev }));
}
