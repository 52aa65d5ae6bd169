/**
 * What the parts of a keeper share: each of its acts (leaving, holding, copying, …) is a file of its own that stands on
 * these.
 */
import type { SideShell } from '../../../system/side-shell.js';
import type { TransportName } from '../../control/interface.js';
import type { KernelMount } from '../../fuse/mounting/device.js';
import type { ForgetWaiters } from '../../holders/forget-waiters.js';
import type { Answering } from '../../images/answering.js';
import type { Ledger } from '../../ledger/ledger.js';
import type { Memories } from '../../ram/ram-images.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import type { Supervisor } from '../supervision/supervisor.js';
import type { ImageWatch } from './image-watch.js';
import type { Activities } from './vbd-activity.js';
import type { VbdTable } from './vbd-table.js';

export interface BusParts {
  readonly place: BusPlace;
  /** the same for all vbds, for as long as the bus lives */
  readonly transport: TransportName;
  /** other users may come in, since it was mounted */
  readonly allowOther: boolean;
  /** another one where a bus that was given up is mounted anew; its supervisor goes with it */
  mount: KernelMount;
  /** device of the mount, as `MAJOR:MINOR`; known once the server serves */
  mountDev: string;
  readonly ledger: Ledger;
  readonly statsFd: number;
  server: Supervisor;
  readonly memories: Memories;
  readonly vbds: VbdTable;
  readonly forgets: ForgetWaiters;
  /** what is being done with the vbds */
  readonly activities: Activities;
  readonly images: ImageWatch;
  /** runs what must not hold up this process */
  readonly shell: SideShell;
  /** how file systems are called that may hang */
  readonly answering: Answering;
  /** the bus was given up: there is no server, and nobody can use a vbd */
  failed: boolean;
  /** a disk did not answer when its vbd was cut off: the server may not end, and clients may wait for it */
  serverMayHang: boolean;
  /** writes down for others what the bus has now */
  record(): void;
}

/** The first of the descriptors of /dev/fuse: what is asked of the kernel is asked there. */
export function deviceOf({ mount }: BusParts): number {
  // none where the bus was given up: what is asked there is refused
  return mount.deviceFds[0] ?? -1;
}
