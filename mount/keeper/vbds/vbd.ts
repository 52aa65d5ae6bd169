/**
 * A vbd as its keeper knows it: all that is needed to report it, to open it in a new server, and to detach it.
 */
import type { Json } from '../../../drivers/driver.js';
import type { FilterSpec } from '../../../drivers/filters/filter.js';
import type { SectorBytes } from '../../../drivers/partitions/index.js';
import type { DetachedVbd } from '../../control/interface.js';
import type { Mode } from '../../images/mode.js';
import type { OpenedImage } from '../../images/open-image.js';
import type { RamImage } from '../../ram/ram-images.js';
import type { Holdings } from './holdings.js';

/** A file of the bus. */
export interface VbdFile {
  readonly vdev: string;
  readonly nodeId: number;
  readonly ledgerIndex: number;
  /** opens get ENOENT: the detach of its vbd waits for the kernel, or knows that nobody uses it */
  leaving: boolean;
}

/** A partition of a vbd: a file of its own over a run of the same disk, attached, paused and detached with the vbd. */
export interface VbdPartition extends VbdFile {
  readonly slot: number;
  /** bytes from the start of the disk */
  readonly offset: number;
  readonly size: number;
  /** see drivers/partitions */
  readonly type: string;
  readonly name: string | null;
  /** it may only be read, whatever the mode of its disk */
  readonly readOnly: boolean;
  /** its place in the ledger */
  readonly holdings: Holdings;
}

/** Where the bytes of a vbd come from. A swap replaces it as a whole. */
export interface VbdSource {
  readonly driver: string;
  readonly options: Readonly<Record<string, string>>;
  /** as requested; for ram, the image is closed after the copy */
  readonly imagePath: string | null;
  /** open and claimed as long as the vbd is attached; null if the bytes are in memory */
  readonly image: OpenedImage | null;
  readonly memory: RamImage | null;
  readonly state: Json | null;
  /** the request said that the image is raw whatever it looks like */
  readonly raw: boolean;
  /** the image with its claim, or the memory */
  readonly holdings: Holdings;
}

export interface Vbd extends VbdFile {
  readonly slot: number;
  readonly mode: Mode;
  readonly filters: readonly FilterSpec[];
  /** changed by resize */
  size: number;
  /** the only part that a swap changes */
  source: VbdSource;
  /** the resources besides its source: places in the ledger, the registration for passthrough */
  readonly holdings: Holdings;
  /** the id of its registration for passthrough, or null; decided at attach, constant while the bus is mounted */
  backingId: number | null;
  /** the id of its registration for mappings only (mode r), or null; a swap changes it */
  mapId: number | null;
  /** why the installed server could not open its disk: every request fails with EIO; null if it could */
  broken: string | null;
  /** requests wait until it is resumed */
  paused: boolean;
  /** the owners of the pause: see pauses.ts */
  pausedFor?: readonly string[];
  /** the keeper detaches it when nobody uses it any more; if omitted, false */
  detachesWhenUnused?: boolean;
  /** the sectors in which its partition table counts; null: the table tells */
  readonly sectorBytes: SectorBytes | null;
  /** null if partitions were not requested; replaced as a whole when the table is read again */
  partitions: readonly VbdPartition[] | null;
  /** the flush and close that are under way, which cannot be stopped; see Detaching.takeAway */
  removal?: Promise<DetachedVbd>;
}
