/** What the verbs that open disks need of the keeper. */
import type { Answering } from '../../images/answering.js';
import type { DescribePid } from '../../images/claim-image.js';
import type { OwnBus } from '../../images/open-image.js';
import type { Memories } from '../../ram/ram-images.js';
import type { VbdFacts } from '../../server/commands.js';
import type { Supervisor } from '../supervision/supervisor.js';
import type { Holdings } from '../vbds/holdings.js';
import type { Vbd } from '../vbds/vbd.js';

/** What attaching needs of the keeper. */
export interface AttachContext {
  readonly server: Supervisor;
  readonly memories: Memories;
  readonly mountpoint: string;
  /** device of the mount, as `MAJOR:MINOR`: an image there would wait for itself */
  readonly mountDev: string;
  /** a node with a place in the ledger, which the holdings take over. @throws FusetapError NO_SPACE */
  newNode(holdings: Holdings): { nodeId: number; ledgerIndex: number };
  facts(vbd: Vbd): VbdFacts;
  /** how file systems are called that may hang */
  readonly answering: Answering;
  /** gives an open file to the kernel for passthrough: its id, or −errno */
  register(fd: number): number;
  unregister(id: number): void;
  /** by which vbd a process holds a file */
  readonly describePid: DescribePid;
}

/** The bus, as who opens images has to know it. */
export function ownBus({ mountDev, mountpoint, answering }: AttachContext): OwnBus {
  return { ownDev: mountDev, mountpoint, answering };
}
