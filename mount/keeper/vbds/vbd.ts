/**
 * A vbd as its keeper knows it: all that is needed to show it, to open it in a new server, and to let it go.
 */
import type { Json } from '../../../drivers/driver.js';
import type { FilterSpec } from '../../../drivers/filters/filter.js';
import type { DetachedVbd } from '../../control/interface.js';
import type { Mode } from '../../images/mode.js';
import type { OpenedImage } from '../../images/open-image.js';
import type { SharedMemory } from '../../ram/ram-images.js';
import type { Holdings } from './holdings.js';

/** A file of the bus. */
export interface VbdFile {
  readonly vdev: string;
  readonly nodeId: number;
  readonly ledgerIndex: number;
  /** nobody may open it any more: the detach of its vbd is waiting for the kernel, or has been told yes */
  leaving: boolean;
}

/** A partition of a vbd: a file of its own, a run of the same disk. Comes and goes with the vbd, and is held with it. */
export interface VbdPartition extends VbdFile {
  readonly slot: number;
  /** bytes from the start of the disk */
  readonly offset: number;
  readonly size: number;
  /** see drivers/partitions */
  readonly type: string;
  readonly name: string | null;
}

/** Where the bytes of a vbd come from. A swap replaces it as a whole. */
export interface VbdSource {
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
  /** as asked for; the image may have been closed since (ram) */
  readonly imagePath: string | null;
  /** held open and claimed for as long as the vbd lives; null where memory holds the bytes */
  readonly image: OpenedImage | null;
  readonly memory: SharedMemory | null;
  readonly state: Json | null;
  /** the image with its claim, or the memory */
  readonly holdings: Holdings;
}

export interface Vbd extends VbdFile {
  readonly slot: number;
  readonly mode: Mode;
  readonly filters: readonly FilterSpec[];
  readonly size: number;
  /** the only part that a swap changes */
  source: VbdSource;
  /** what the vbd holds besides its source: places in the ledger, the kernel's registration for passthrough */
  readonly holdings: Holdings;
  /** what the kernel does the I/O on by itself; decided at attach, the same for as long as the bus is mounted */
  backingId: number | null;
  /** why its disk did not come back in the server that is in place: every request is EIO; null where it is well */
  broken: string | null;
  /** I/O waits until it is resumed */
  paused: boolean;
  /** who holds it so: see pauses.ts */
  pausedFor?: readonly string[];
  /** null where nobody asked for them */
  readonly partitions: readonly VbdPartition[] | null;
  /** it is being flushed and closed, which nothing stops; see Detaching.takeAway */
  removal?: Promise<DetachedVbd>;
}
