/** The files of a vbd: its own, and with `--partitions` those of its partitions. */
import type { Vbd, VbdFile } from './vbd.js';

/** The partitions come first: if one of them is in use, this is found before the vbd itself is touched. */
export function filesOf(vbd: Vbd): VbdFile[] {
  return [...(vbd.partitions ?? []), vbd];
}
