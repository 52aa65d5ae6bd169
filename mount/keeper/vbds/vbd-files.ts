/** The files of a vbd: its own, and with `--partitions` those of its partitions. */
import type { Vbd, VbdFile } from './vbd.js';

/** The partitions first, so that a vbd that is in use through one of them says so before it is touched. */
export function filesOf(vbd: Vbd): VbdFile[] {
  return [...(vbd.partitions ?? []), vbd];
}
