/** The files of a vbd: its own, and with `--partitions` those of its partitions. */
import type { Ledger } from '../../ledger/ledger.js';
import type { Vbd, VbdFile } from './vbd.js';

/** The partitions come first: if one of them is in use, this is found before the vbd itself is touched. */
export function filesOf(vbd: Vbd): VbdFile[] {
  return [...(vbd.partitions ?? []), vbd];
}

/** The files of a vbd that are open. */
export function filesInUse({ ledger }: { readonly ledger: Ledger }, vbd: Vbd): VbdFile[] {
  const opens = ledger.countHandles();
  return filesOf(vbd).filter(({ nodeId }) => opens.has(nodeId));
}
