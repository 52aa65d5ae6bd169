/**
 * What the parts of a keeper share. Each verb (attach, detach, pause, save, …) is a file of its own that uses these.
 */
import type { SideShell } from '../../../system/side-shell.js';
import type { TransportName } from '../../control/interface.js';
import type { KernelMount } from '../../fuse/mounting/device.js';
import type { ForgetWaiters } from '../../holders/forget-waiters.js';
import type { Answering } from '../../images/answering.js';
import type { Ledger } from '../../ledger/ledger.js';
import type { RamImages } from '../../ram/ram-images.js';
import type { BusPlace } from '../../runtime/bus-place.js';
import type { Supervisor } from '../supervision/supervisor.js';
import type { ImageWatch } from './image-watch.js';
import type { KeptDisks } from './kept-disks.js';
import type { Activities } from './vbd-activity.js';
import type { VbdTable } from './vbd-table.js';

export interface BusParts {
  readonly place: BusPlace;
  /** the same for all vbds, as long as the bus lives */
  readonly transport: TransportName;
  /** other users may use the bus; decided when it was mounted */
  readonly allowOther: boolean;
  /** replaced, with its supervisor, when a bus that was given up is mounted again */
  mount: KernelMount;
  /** device of the mount, as `MAJOR:MINOR`; known when the server answers */
  mountDev: string;
  readonly ledger: Ledger;
  readonly statsFd: number;
  server: Supervisor;
  readonly memories: RamImages;
  readonly vbds: VbdTable;
  readonly kept: KeptDisks;
  readonly forgets: ForgetWaiters;
  /** the activity that is under way on each vbd */
  readonly activities: Activities;
  readonly images: ImageWatch;
  /** runs commands that may hang, so that this process does not */
  readonly shell: SideShell;
  /** calls file systems that may hang */
  readonly answering: Answering;
  /** the bus was given up: it has no server, and its vbds cannot be used */
  failed: boolean;
  /** a disk did not answer when its vbd was detached by force: the server may not exit, and clients may wait for it */
  serverMayHang: boolean;
  /** writes the state of the bus to bus.json, for others */
  record(): void;
}

/** The descriptor of /dev/fuse on which the keeper makes its own requests to the kernel. */
export function deviceOf({ mount }: BusParts): number {
  // a bus that was given up has none: requests fail with EBADF
  return mount.deviceFds[0] ?? -1;
}
