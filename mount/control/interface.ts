/**
 * The control interface of a bus: what goes over control.sock, as types. routes.ts has the requests that they belong to.
 *
 * It takes parts (driver, image, vdev, mode, options), never spec strings. The keys of VbdInfo and BusInfo are also
 * what `--json` prints: keys may be added, never changed.
 */
import type { Holder, PlainError } from '../../drivers/errors.js';
import type { FilterSpec } from '../../drivers/filters/filter.js';
import type { Mode } from '../images/mode.js';
import type { KindStats } from '../ledger/counters.js';

/** MAJOR.MINOR. Another MAJOR is refused; a MINOR only adds. */
export const INTERFACE_VERSION = '1.0';
/** The header, of requests and answers, that says which interface is spoken. */
export const INTERFACE_HEADER = 'fusetap-interface';
export type BusState = 'running' | 'paused' | 'restarting' | 'orphaned' | 'failed';
/** The file system of the image does not answer (`not-answering`), or answers that the image is lost (`gone`). */
export type ImageState = 'not-answering' | 'gone' | null;
export type TransportName = 'kernel' | 'fuse-native';

export interface PartitionInfo {
  vdev: string;
  path: string;
  slot: number;
  /** bytes from the start of the disk */
  offset: number;
  size: number;
  /** the byte of an MBR in hexadecimal, as `83`; the GUID of a GPT */
  type: string;
  /** what that type is for; null for one that is not common */
  typeName: string | null;
  /** the name that a GPT gives it */
  name: string | null;
  /** open handles, as far as known */
  opens: number;
}

/** A vbd. A key without a value is null; sizes are bytes; paths absolute. */
export interface VbdInfo {
  bus: string;
  vdev: string;
  slot: number;
  path: string;
  driver: string;
  image: string | null;
  mode: Mode;
  size: number;
  state: BusState;
  /** open handles, as far as known */
  opens: number;
  transport: TransportName;
  passthrough: boolean;
  /** name of the shared memory, ram only */
  share: string | null;
  /** its filters in the words of the options, the first next to the driver: `offset=512`; missing: an older bus */
  filters?: string[];
  /** null where nobody asked for them */
  partitions: PartitionInfo[] | null;
  keeperPid: number | null;
  serverPid: number | null;
  /** how often the server was replaced while this vbd was attached */
  restarts: number;
  /** the image was changed by somebody else while attached */
  changedOutside: boolean;
  /** why its disk did not come back when the server was replaced: its I/O is EIO; else null; missing: an older bus */
  broken?: string | null;
  /** whether the image can be asked; null where it can, or where there is none; missing: an older bus */
  imageState?: ImageState;
}

export interface BusInfo {
  bus: string;
  /** the mount */
  path: string;
  transport: TransportName;
  /** whether other users may come in */
  allowOther: boolean;
  keeperPid: number | null;
  serverPid: number | null;
  restarts: number;
  state: BusState;
  /** why what the bus writes for others in its runtime directory may be old; null: all is written; missing: an older bus */
  bookkeeping?: string | null;
  interface: string;
  vbds: VbdInfo[];
}

/** What a bus is begun with; one that runs with something else refuses. Missing: whichever it has. */
export interface BusWishes {
  /** else `kernel` */
  transport?: TransportName | undefined;
  /** other users, root among them, may come in; else not */
  allowOther?: boolean | undefined;
}

/** POST /vbds */
export interface AttachRequest extends BusWishes {
  driver: string;
  /** absolute path */
  image: string | null;
  /** a vdev, or null for the first free xvd* */
  vdev: string | null;
  mode: Mode;
  /** whether the kernel may do the I/O by itself: `auto` is for ram only, `on` also for files; the default is `auto` */
  passthrough?: 'auto' | 'on' | 'off';
  /** the name that its memory is shared under, ram only; missing: by the identity of its image */
  share?: string | null | undefined;
  /** driver options by name */
  options: Record<string, string>;
  /** the first is next to the driver; missing: none */
  filters?: FilterSpec[] | undefined;
  /** whether its partitions are files beside it; missing: no */
  partitions?: boolean | undefined;
  /** whose its files are; missing: his who runs the bus */
  uid?: number | undefined;
  gid?: number | undefined;
  /** permission bits of its files in octal; missing: `0600` */
  fileMode?: string | undefined;
}

/** Answer of POST /vbds. */
export type AttachResult = VbdInfo & {
  /** what the user should know, one line each; missing: nothing */
  notes?: string[];
};

/** POST /vbds/VDEV/save */
export interface SaveRequest {
  /** absolute path of the copy */
  path: string;
  /** whether it may take the place of a file */
  force: boolean;
}

export interface SaveResult {
  path: string;
  size: number;
}

/** POST /vbds/VDEV/swap: another image under a vbd. Its mode and filters stay. */
export interface SwapRequest {
  /** pause the vbd for the swap; default: it must be paused already */
  pause?: boolean | undefined;
  driver: string;
  /** absolute path, of an image that gives a disk of the same size */
  image: string | null;
  /** see AttachRequest */
  share?: string | null | undefined;
  /** driver options by name */
  options: Record<string, string>;
}

/** A ram image. */
export interface RamImageInfo {
  share: string;
  /** what it was copied from */
  image: string;
  configuredBytes: number;
  residentBytes: number;
  holders: Holder[];
}

/** GET /memory: the ram images of all buses of a runtime directory. */
export interface MemoryInfo {
  /** the limit */
  totalBytes: number;
  usedBytes: number;
  freeBytes: number;
  images: RamImageInfo[];
}

/** The type that a client accepts which wants to know how far a copy is: the answer is then lines of JSON. */
export const PROGRESS_TYPE = 'application/x-ndjson';

/** A line of such an answer; the last is the answer proper. */
export type AnswerLine = { progress: { doneBytes: number; totalBytes: number } } | { status: number; body: unknown };

/** Answer of DELETE /vbds/VDEV and POST /stop: what went. */
export interface DetachResult {
  vbds: DetachedVbd[];
  /** the bus ends now: its processes and its mount are going away */
  ended: boolean;
}

/** A vbd that is gone. */
export type DetachedVbd = VbdInfo & {
  /** why writes may be lost: its last flush failed, or what lay on it was not written back; missing: all is durable */
  error?: PlainError;
  /** who held it when it was taken away by force; missing: nobody */
  cutOff?: Holder[];
};

/** POST /upgrade: how long requests had to wait. */
export interface UpgradeResult {
  bus: BusInfo;
  pauseMs: number;
}

/** GET /stats: one for each vbd, since its attach. What the kernel did by itself (passthrough) is not in it. */
export interface VbdStats {
  bus: string;
  vdev: string;
  passthrough: boolean;
  read: KindStats;
  write: KindStats;
  flush: KindStats;
  discard: KindStats;
}

/** GET /version */
export interface VersionInfo {
  interface: string;
  fusetap: string;
}

/** The body of every answer that is not 2xx. */
export interface ErrorAnswer {
  error: PlainError;
}
