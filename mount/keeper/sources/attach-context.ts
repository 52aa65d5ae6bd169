/** What verbs that open disks (attach, reset, swap) need from the keeper. */
import type { Answering } from '../../images/answering.js';
import type { DescribePid } from '../../images/claim-image.js';
import type { OwnBus } from '../../images/open-image.js';
import type { RamImages } from '../../ram/ram-images.js';
import type { VbdFacts } from '../../server/commands.js';
import type { Supervisor } from '../supervision/supervisor.js';
import type { Holdings } from '../vbds/holdings.js';
import type { KeptDisks } from '../vbds/kept-disks.js';
import type { Vbd } from '../vbds/vbd.js';

export interface AttachContext {
  readonly server: Supervisor;
  readonly memories: RamImages;
  readonly mountpoint: string;
  /** device of the mount, as `MAJOR:MINOR`; an image on it is refused, because it would wait for itself */
  readonly mountDev: string;
  /**
   * makes a node with a place in the ledger, which the holdings then own
   * @param readOnly its file gets no permission to write
   * @throws FusetapError NO_SPACE
   */
  newNode(holdings: Holdings, readOnly: boolean): { nodeId: number; ledgerIndex: number };
  facts(vbd: Vbd): VbdFacts;
  readonly runtimeDir: string;
  /** where drivers of remote disks keep what outlives a server */
  readonly kept: KeptDisks;
  /** calls file systems that may hang */
  readonly answering: Answering;
  /** registers an open file with the kernel for passthrough. @returns its id, or −errno */
  register(fd: number): number;
  unregister(id: number): void;
  /** finds the vbd through which a process uses a file */
  readonly describePid: DescribePid;
}

/** The facts about this bus that code which opens images needs. */
export function ownBus({ mountDev, mountpoint, answering }: AttachContext): OwnBus {
  return { ownDev: mountDev, mountpoint, answering };
}
