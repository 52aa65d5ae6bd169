/** A partition belongs to a vbd and is not a vbd itself: commands on vbds take its disk. */
import { FusetapError } from '../../drivers/errors.js';

/** @param where the bus in the message, as `bus 0` */
export function refusePartition(partition: string, disk: string, where: string): FusetapError {
  return new FusetapError('USAGE', `${partition} on ${where} is a partition of ${disk}`, {
    hint: `name the disk: ${disk} and its partitions are attached and detached together`,
  });
}
