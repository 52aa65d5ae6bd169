/**
 * The types of the control interface of a bus (control.sock). routes.ts has the requests that use them.
 *
 * The interface takes parts (driver, image, vdev, mode, options), never spec strings. `--json` prints the keys of
 * VbdInfo and BusInfo too: keys may be added, never changed.
 */
import type { Change } from '../../drivers/driver.js';
import type { Holder, PlainError } from '../../drivers/errors.js';
import type { FilterSpec } from '../../drivers/filters/filter.js';
import type { NodeSpec } from '../../drivers/graph.js';
import type { MapExtent } from '../../drivers/map/map-extents.js';
import type { SectorBytes } from '../../drivers/partitions/index.js';
import type { Mode } from '../images/mode.js';
import type { Kind, KindCounters, KindStats } from '../ledger/counters.js';

export type { HistogramBucket, Kind, KindCounters, KindStats } from '../ledger/counters.js';

/** The kinds of requests, in the order in which they are shown. Clients do not load the ledger, which has them too. */
export const KINDS = ['read', 'write', 'flush', 'discard'] as const satisfies readonly Kind[];

/** MAJOR.MINOR. Another MAJOR is refused; a new MINOR only adds. */
export const INTERFACE_VERSION = '1.1';
/** The header of requests and answers that tells the version of the interface. */
export const INTERFACE_HEADER = 'fusetap-interface';
export type BusState = 'running' | 'paused' | 'reconnecting' | 'restarting' | 'orphaned' | 'failed';
/** `not-answering`: the file system of the image does not answer; `gone`: it answers that the image is lost. */
export type ImageState = 'not-answering' | 'gone' | null;
export type TransportName = 'kernel' | 'fuse-native';

export interface PartitionInfo {
  vdev: string;
  path: string;
  slot: number;
  /** bytes from the start of the disk */
  offset: number;
  size: number;
  /** MBR: a byte in hexadecimal, for example `83`; GPT: a GUID */
  type: string;
  /** the purpose of that type; null if the type is not common */
  typeName: string | null;
  /** its name in a GPT */
  name: string | null;
  /** `r` if the partition may only be read, else the mode of its disk; an older bus omits it */
  mode?: Mode;
  /** open handles, as far as known */
  opens: number;
}

/** A vbd. A key without a value is null; sizes are in bytes; paths are absolute. */
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
  /** its filters as NAME=VALUE, for example `offset=512`, the first next to the driver; an older bus omits it */
  filters?: string[];
  /** the options of its driver; an older bus omits it */
  options?: Record<string, string>;
  /** the tree of its disk; omitted if that is the driver over the image */
  disk?: NodeSpec;
  /** see AttachRequest; omitted if it is the default */
  backing?: BackingPolicy;
  /** the attach said that the image is raw whatever it looks like; omitted if it did not */
  raw?: boolean;
  /** null if the attach did not ask for them */
  partitions: PartitionInfo[] | null;
  /** the sectors in which its partition table counts, in bytes; null: the table tells; an older bus omits it */
  sectorSize?: number | null;
  keeperPid: number | null;
  serverPid: number | null;
  /** how often the server was replaced while this vbd was attached */
  restarts: number;
  /** another program changed the image while it was attached */
  changedOutside: boolean;
  /**
   * why its disk could not be opened again when the server was replaced: its I/O fails with EIO; an older bus omits it
   */
  broken?: string | null;
  /** the trouble with the image; null if there is none, or no image; an older bus omits it */
  imageState?: ImageState;
  /** a part of `changedOutside`: its bytes or its size were changed, not only its path; an older bus omits it */
  writtenOutside?: boolean;
  /** where the image is now, if it was moved; null: it was not moved, or nobody knows; an older bus omits it */
  movedTo?: string | null;
  /** its image has no name any more: the detach loses its data; an older bus omits it */
  deleted?: boolean;
  /** an older bus omits it */
  version?: BusVersion;
  /** whether it is detached when nobody uses it any more; an older bus omits it */
  detachesWhenUnused?: boolean;
  /** its disk is on a network and cannot be reached: since when (ISO 8601), and why; its requests wait; null: it can */
  reconnecting?: Reconnecting | null;
  /** whether it is paused until somebody resumes it, not only for a copy that is being made; an older bus omits it */
  pausedByUser?: boolean;
}

/** A disk on a network that cannot be reached. */
export interface Reconnecting {
  since: string;
  reason: string;
}

/** The versions of fusetap that the processes of a bus run; null if there is no such process, or it is older. */
export interface BusVersion {
  keeper: string | null;
  server: string | null;
}

export interface BusInfo {
  bus: string;
  /** the mount point */
  path: string;
  transport: TransportName;
  /** whether other users may use the bus */
  allowOther: boolean;
  keeperPid: number | null;
  serverPid: number | null;
  restarts: number;
  state: BusState;
  /** why the files of the bus in the runtime directory may be out of date; null: they are not; an older bus omits it */
  bookkeeping?: string | null;
  /** the unit of systemd in which its processes are, as `fusetap-bus-0.scope`; null: none; an older bus omits it */
  unit?: string | null;
  interface: string;
  /** an older bus omits it */
  version?: BusVersion;
  vbds: VbdInfo[];
}

/** How to start the bus. A running bus refuses another transport, and `allowOther` if it was started without. */
export interface BusWishes {
  /** default for a new bus: `kernel` */
  transport?: TransportName | undefined;
  /** other users, root included, may use the bus; default for a new bus: false */
  allowOther?: boolean | undefined;
}

/** POST /vbds */
export interface AttachRequest extends BusWishes, DiskWish {
  /** a vdev, or null for the first free xvd* */
  vdev: string | null;
  mode: Mode;
  /** whether the kernel may do the I/O itself: `auto` only for ram, `on` also for files; default: `auto` */
  passthrough?: 'auto' | 'on' | 'off';
  /** the first is next to the driver; default: none */
  filters?: FilterSpec[] | undefined;
  /** whether to show its partitions as files; default: false */
  partitions?: boolean | undefined;
  /** the sectors in which its partition table counts; default: a GPT tells, an MBR counts in 512 bytes */
  sectorSize?: SectorBytes | undefined;
  /** owner of its files; default: the owner of the bus */
  uid?: number | undefined;
  gid?: number | undefined;
  /** permission bits of its files in octal; default: `0600` */
  fileMode?: string | undefined;
}

/**
 * Which files an image may name, as the backing file of a qcow2: those in its directory and below, any, or none. The
 * names are looked up in the directory of the image.
 */
export type BackingPolicy = 'same-directory' | 'any' | 'none';
export const BACKING_POLICIES = ['same-directory', 'any', 'none'] as const satisfies readonly BackingPolicy[];

/** The disk that a request asks for: a driver over an image, or a tree of drivers. */
export interface DiskWish {
  /** if `disk` is set: of its top */
  driver: string;
  /** absolute path; if `disk` is set: of its main file */
  image: string | null;
  /** driver options by name; if `disk` is set: of its top */
  options: Record<string, string>;
  /** a tree of drivers; default: `driver` over `image` */
  disk?: NodeSpec | undefined;
  /** default: `same-directory` */
  backing?: BackingPolicy | undefined;
  /** the name under which its memory is shared, ram only; default: the identity of its image */
  share?: string | null | undefined;
  /** use the bytes of the image as they are, even if it is recognized as another format; default: it is refused then */
  raw?: boolean | undefined;
}

/** Answer of POST /vbds. */
export type AttachResult = VbdInfo & {
  /** remarks for the user, one line each; omitted if there are none */
  notes?: string[];
};

/** POST /vbds/VDEV/save */
export interface SaveRequest {
  /** absolute path of the copy, which is a file; omitted if there is `to` */
  path?: string | undefined;
  /** a disk of the same size, which becomes the copy */
  to?: DiskWish | undefined;
  /** whether it may replace an existing file, or the data of a disk */
  force: boolean;
}

export interface SaveResult {
  /** of the copy; null if it is not in a file */
  path: string | null;
  size: number;
}

/** Answer of POST /vbds/VDEV/commit. */
export interface CommitResult {
  /** the path of the image that has the data now, as the tree of the disk has it; null if the base has no main file */
  base: string | null;
  /** remarks for the user, one line each */
  notes?: string[];
}

/** Answer of GET /vbds/VDEV/changes: where a vbd differs from its base. */
export interface ChangesResult {
  /** in order; a bounded part of all of them */
  changes: Change[];
  /** the offset to ask for next; null: there are no more */
  next: number | null;
}

/** Answer of GET /vbds/VDEV/map: what a disk is, range by range. */
export interface MapResult {
  /** in order, without gaps; a bounded part of all of them */
  extents: MapExtent[];
  /** the offset to ask for next; null: there are no more */
  next: number | null;
}

/** POST /vbds/VDEV/swap: gives a vbd another image of the same size. Its mode and filters stay. */
export interface SwapRequest extends DiskWish {
  /** pause the vbd for the swap; default: it must be paused already */
  pause?: boolean | undefined;
}

/** A ram image. */
export interface RamImageInfo {
  share: string;
  /** the file it was copied from */
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

/** What a scraper of Prometheus accepts first. */
export const OPEN_METRICS_TYPE = 'application/openmetrics-text; version=1.0.0; charset=utf-8';

/** A client that accepts this media type gets the progress of a copy: the answer is then lines of JSON. */
export const PROGRESS_TYPE = 'application/x-ndjson';

/** A line of such an answer; the last line has the status and the body. */
export type AnswerLine = { progress: { doneBytes: number; totalBytes: number } } | { status: number; body: unknown };

/** Answer of DELETE /vbds/VDEV and POST /stop: the vbds that were detached. */
export interface DetachResult {
  vbds: DetachedVbd[];
  /** whether the bus ends now: its processes exit and its mount goes */
  ended: boolean;
}

/** A vbd that was detached. */
export type DetachedVbd = VbdInfo & {
  /** why writes may be lost: its last flush, or the write-back of its users, failed; omitted if all data is durable */
  error?: PlainError;
  /** what used it when it was detached by force; omitted if it was not in use */
  cutOff?: Holder[];
};

/** POST /upgrade */
export interface UpgradeRequest {
  /** the program of the new server, an absolute path; default: the one in the keeper's own installation */
  program?: string | undefined;
}

/** Answer of POST /upgrade; `pauseMs`: how long requests had to wait. */
export interface UpgradeResult {
  bus: BusInfo;
  pauseMs: number;
  /** the program of the server that runs now; an older bus omits it */
  program?: string;
}

/**
 * GET /stats: counters of one vbd since its attach. They do not count I/O that the kernel does without the server
 * (passthrough).
 */
export interface VbdStats {
  bus: string;
  vdev: string;
  passthrough: boolean;
  read: KindStats;
  write: KindStats;
  flush: KindStats;
  discard: KindStats;
}

/**
 * GET /names: what a file of a bus holds, a vbd or a partition. The bus reads it from the disk. A key without a value is
 * null.
 */
export interface FileNames {
  bus: string;
  vdev: string;
  slot: number;
  path: string;
  /** as blkid(8) names it: `ext4`, `vfat`, `swap`, `crypto_LUKS`, `LVM2_member` … */
  type: string | null;
  usage: 'filesystem' | 'crypto' | 'raid' | 'other' | null;
  label: string | null;
  /** the label with unsafe characters as `\x20`, as in by-label: exact even if it is no UTF-8 */
  labelEncoded: string | null;
  /** a UUID, or the volume id of FAT, exFAT, NTFS or ISO 9660 */
  uuid: string | null;
  /** of a partition: its name in a GPT */
  partlabel: string | null;
  /** of a partition, in small letters */
  partuuid: string | null;
  /** the disk could not be read now: it may have other names, or names at all; omitted: the names are those of now */
  known?: false;
}

/**
 * GET /counters: all that the bus counts, in one answer that is cheap to make, to be asked for every second. Rates are
 * differences of two answers.
 */
export interface BusCounters {
  bus: string;
  /** the mount point */
  path: string;
  /** tells a bus from a later one of the same name: all counts of a run are of that run */
  run: string;
  /** when this was counted: the machine's monotonic clock, in ms */
  monotonicMs: number;
  state: BusState;
  /** null if not known: its keeper has died */
  restarts: number | null;
  keeper: ProcessCounters | null;
  server: ProcessCounters | null;
  /** how many requests the kernel has, sent to the server or not, that are not answered; null if not known */
  waiting: number | null;
  /** ask with `since` and this, to get only the vbds of which something has changed; an older bus omits it */
  mark?: string | undefined;
  /** the ids of all vbds, if `vbds` has only those that have changed since the mark that was given */
  ids?: number[] | undefined;
  /** vbds, each followed by its partitions */
  vbds: VbdCounters[];
}

/** What a process of a bus uses. */
export interface ProcessCounters {
  pid: number;
  /** processor time of all its threads since its start, in ms */
  cpuMs: number;
  /** its pages that are in memory, shared ones too */
  rssBytes: number;
  /** the same, but a page that n processes share counts as 1/n; up to ten seconds old; null if not known */
  pssBytes: number | null;
}

/** The counters of a vbd, or of a partition of one, since its attach. */
export interface VbdCounters extends Record<Kind, KindCounters> {
  vdev: string;
  /** tells it from a later vbd of the same name on this run of the bus */
  id: number;
  /** the vdev of its disk if this is a partition */
  disk: string | null;
  driver: string;
  image: string | null;
  mode: Mode;
  /** bytes */
  size: number;
  state: BusState;
  /** the kernel does its I/O without the server, so it is not counted */
  passthrough: boolean;
  /** as in VbdInfo */
  broken: string | null;
  /** the last known one; nobody is asked for it */
  imageState: ImageState;
  /** open handles, as far as known */
  opens: number;
  /** how many requests the server works on now */
  inProgress: number;
  /** how long the oldest of them has been seen in progress, in ms, at least */
  oldestMs: number;
  /** flushes and write-backs that failed */
  flushErrors: number;
}

/** GET /version */
export interface VersionInfo {
  interface: string;
  /** the version of the process that answers: of the keeper, if it lives */
  fusetap: string;
  /** the version of the server, which an upgrade replaces; an older bus omits it */
  server?: string | null;
}

/** The body of every answer that is not 2xx. */
export interface ErrorAnswer {
  error: PlainError;
}
