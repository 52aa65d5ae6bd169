/** A partition is part of a vbd and none of its own: what is done with vbds is done with its disk. */
import { FusetapError } from '../../drivers/errors.js';

/** @param where what to call the place in messages, as `bus 0` */
export function refusePartition(partition: string, disk: string, where: string): FusetapError {
  return new FusetapError('USAGE', `${partition} on ${where} is a partition of ${disk}`, {
    hint: `name the disk: ${disk} and its partitions come and go together`,
  });
}
