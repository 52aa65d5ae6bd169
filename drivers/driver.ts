/**
 * The contract of a driver: types only. Every comment here is a promise: of fusetap to the driver ("is given"), or of
 * the driver to fusetap ("must").
 *
 *      caller ──► disk.ts (validates, shortens, emulates) ──► a driver's RawDisk ──► the image
 *
 * Only disk.ts calls a RawDisk. So a driver is given only requests that are not empty, lie wholly inside the disk and
 * come while the disk is open. It is given calls that write only if it was opened for writing.
 */

import type { DiskMap, MapFile } from './map/disk-map.js';
import type { Segment, Window } from './segments/segment.js';

export type { MapFile, Segment, Window };

/** A JSON value. The state that `prepare` returns has this type, because another process keeps it. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The image as fusetap opened it. The driver must not close the descriptor. */
export interface ImageFile {
  /**
   * Open for reading, and for writing too unless the disk is read-only; never O_DIRECT. Other processes share the open
   * file description, and so its position and flags: read and write at offsets, and do not change the position or the
   * flags.
   */
  readonly fd: number;
  /** absolute, for messages only: the file may have been renamed meanwhile, so a driver must not open this path */
  readonly path: string;
  /** its name in its directory, where symbolic links lead to; default: the last part of `path` */
  readonly name?: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'block';
}

/** Memory that outlives the process that serves the disk: a memfd that belongs to fusetap's keeper. */
export interface Memory {
  readonly fd: number;
}

/**
 * What is below a driver in the tree of a disk, by role. Numbered roles (Role.many) have their number in the name:
 * `part0`, `part1`.
 */
export interface Given {
  /** for roles that take a file */
  readonly files: Readonly<Record<string, ImageFile>>;
  /** for roles that take a disk; they are open, and fusetap closes them after the driver's disk */
  readonly disks: Readonly<Record<string, Disk>>;
}

/** What a driver takes under a role. */
export interface Role {
  /** `disk`: what another driver opens; a file there is opened with aio */
  readonly takes: 'file' | 'disk';
  /** `as-parent`: written if the vbd is; `read`: never written, and claimed with mode r */
  readonly access: 'as-parent' | 'read';
  /** default: false */
  readonly isOptional?: boolean;
  /** any number of them: `part` stands for `part0`, `part1` …; default: false */
  readonly many?: boolean;
}

/** A file that an image names. The name is hostile input: fusetap looks it up by the rules of `--backing`. */
export interface Need {
  /** a role of the driver that is not given yet */
  readonly role: string;
  /** as the image has it */
  readonly name: string;
  /** what opens the file, `aio` for a raw one; it is a fault of the image if it does not say that */
  readonly driver: string;
  /** if there is no such file, the driver is told so by NeedsContext.absent; default: false, an error */
  readonly isOptional?: boolean;
}

/** What `needs` is given. Everything is open for reading only. */
export interface NeedsContext extends Given {
  /** driver options of the node, by name */
  readonly options: Readonly<Record<string, string>>;
  /**
   * The name of the file under `file`, without its directory. If a disk is under `file`: of the file under its `file`,
   * and so on. Null if there is none.
   */
  readonly name: string | null;
  /** the roles of optional needs whose file does not exist */
  readonly absent: readonly string[];
}

/** What a driver keeps beyond the process that serves the disk: see Host.keep. */
export interface Kept {
  readonly facts: Json;
  /** of this process; the driver must not close them */
  readonly fds: readonly number[];
}

/** Whether a remote disk can be reached. `reconnecting`: requests wait; `broken`: they fail, and will go on to fail. */
export type ConnectionState =
  | { readonly is: 'connected' }
  | { readonly is: 'reconnecting' | 'broken'; readonly reason: string };

/** What a driver of a remote disk tells the bus that serves it. */
export interface Host {
  /**
   * Keeps facts and descriptors for the next server, in place of what was kept before. Resolves when they would outlive
   * this process; rejects if they would not. The descriptors stay the driver's, and may be closed after that. The first should be a memory that begins
   * as kept-head.ts says: if no server is left, it tells whether writes may be lost.
   */
  keep(facts: Json, fds: readonly number[]): Promise<void>;
  /** To be called when the state changes; it is `connected` at first. */
  told(state: ConnectionState): void;
  /** Acknowledged writes may be lost: each handle of the vbd and its detach get this error once. */
  lost(error: Error): void;
}

export interface OpenContext<State extends Json = Json> extends Given {
  /** for a driver with `scratch`, else null */
  readonly memory: Memory | null;
  /** the value that `prepare` returned; null for a driver without `prepare` */
  readonly state: State | null;
  readonly readOnly: boolean;
  /**
   * `repair` ran for this node at this attach; always true if the driver has none. Every server of the vbd is told the
   * same. False for what is only read, with mode w!, and if the fusetap that attached the vbd does not know `repair`.
   */
  readonly isRepaired: boolean;
  /** driver options of the node, by name */
  readonly options: Readonly<Record<string, string>>;
  /**
   * For a driver whose `scratch` is `own`: must be called, and waited for, before a range of the memory that is a hole
   * is filled. Throws NO_SPACE if the limit of ram images is reached.
   */
  mayFill?(offset: number, length: number): Promise<void>;
  /** for a driver with `isRemote`: mode w!, so others may write the same bytes, and no lock is taken; default: false */
  readonly isShared?: boolean;
  /** what an earlier server of the vbd has kept last; null: nothing */
  readonly kept?: Kept | null;
  /** set if the driver has `isRemote`, and another process takes the disk over when this one dies */
  readonly host?: Host | undefined;
}

export interface PrepareContext extends Given {
  /** a memfd of size 0, sealable, for the driver to fill */
  readonly memory: Memory;
  /** the path of the image, for messages */
  readonly path: string;
  readonly options: Readonly<Record<string, string>>;
  /** aborted when the attach is given up: stop soon and throw the signal's reason */
  readonly signal: AbortSignal;
  /** may be called any number of times while the memory is filled */
  progress(doneBytes: number, totalBytes: number): void;
}

/** What `measure` is given. */
export type MeasureContext = Omit<PrepareContext, 'memory' | 'progress'>;

/** What `repair` is given. Everything is open for writing, except what is under roles that are only read. */
export type RepairContext = Omit<PrepareContext, 'memory'>;

export interface Driver<State extends Json = Json> {
  /** lower case, as in `aio:disk.img` */
  readonly name: string;
  /** what the driver takes, by role; `file` is what a user names as `NAME:FILE`; none: its source is in the options */
  readonly roles: Readonly<Record<string, Role>>;
  /**
   * The disk is the bytes under the role `file`, or a copy of them. A file that is recognized as another format (qcow2, gzip …) is then refused
   * before `open` or `prepare`, unless the user says `--raw`.
   */
  readonly rawImage?: boolean;
  /**
   * The driver has memory that outlives the process that serves the disk. `shared`: all vbds of the same image share it,
   * `prepare` runs once for the first, and what is below the driver is closed then. `own`: each vbd has its own.
   */
  readonly scratch?: 'own' | 'shared';
  /** @throws FusetapError USAGE for options that are wrong for any image; must look at nothing else */
  check?(options: Readonly<Record<string, string>>): void;
  /**
   * What the image needs and is not given. Is asked again with more given until it needs nothing. Reads only.
   * @throws FusetapError if the image is broken; the message names no path, fusetap adds it
   */
  needs?(context: NeedsContext): Promise<readonly Need[]>;
  /** The most bytes of memory that `prepare` will fill. Default: the size of the file or disk under `file`. */
  measure?(context: MeasureContext): Promise<number>;
  /**
   * Runs once for a memory, at the first attach: makes the state that must outlive a crash of the server. Every later
   * `open` is given the returned value.
   */
  prepare?(context: PrepareContext): Promise<State>;
  /**
   * Runs at each attach with mode w (not w!), before `open`: finishes what a crash left behind. No other process serves the
   * image then. What is below is repaired first. May change the image, and running it twice must do no harm.
   * @returns remarks for the user, one sentence each
   */
  repair?(context: RepairContext): Promise<readonly string[]>;
  /** The role of the disk that `commit` writes: the base. Its access is `read`. Default: disks have no `commit`. */
  readonly base?: string;
  /**
   * The bytes are beyond this machine. Then `open` must not wait for them if an earlier server has kept what it needs to
   * know: the takeover of all other vbds would wait too. Such a disk is at the top of its
   * tree; one that is only read may also be below drivers with `opensUnread`, or be copied to shared memory. Default: false
   */
  readonly isRemote?: boolean;
  /** `open` reads nothing of the disks below it, so they may be on a network. Default: false */
  readonly opensUnread?: boolean;
  /** Its disks are never written, so many may have one: a vbd of it claims its bytes only for reading. Default: false */
  readonly onlyReads?: boolean;
  /** For a driver with `isRemote`: the one name of what it writes, for the sharing check (rule 8). */
  claims?(options: Readonly<Record<string, string>>): Promise<string>;
  /** Writes to the disk change the size of the file under `file`. Default: a change of its size comes from outside. */
  readonly grows?: boolean;
  /** Runs at attach, and again each time the server is replaced. Must not change the image. */
  open(context: OpenContext<State>): Promise<RawDisk>;
}

/** A range of the disk that is all data or all hole (reads as zeros, takes no space). */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  readonly hole: boolean;
}

/** A range of the disk that was written or zeroed since the disk was made over its base. */
export interface Change {
  readonly offset: number;
  readonly length: number;
  /** zeros: it reads as zeros, and takes no space */
  readonly kind: 'data' | 'zeros';
}

export interface WriteOptions {
  /** the write must be durable before it is acknowledged */
  readonly durable: boolean;
}

export interface ZeroOptions {
  /** free the space if possible; the bytes must read as zeros in any case */
  readonly punch: boolean;
  readonly durable: boolean;
}

/** What `commit` is given. */
export interface CommitContext {
  /** aborted when the commit is given up: stop soon and throw the signal's reason */
  readonly signal: AbortSignal;
  /** may be called any number of times */
  progress(doneBytes: number, totalBytes: number): void;
}

/**
 * Makes a disk larger: for a format above it, whose image grows. The disk of a vbd itself never grows, nor does anything
 * that shows a part of a disk.
 */
export interface Growth {
  /**
   * Takes over the current size of the file: a server before this one may have made it larger. Call it in `activate`,
   * because such a server may still run while `open` does. The disk never becomes smaller.
   * @returns the size of the disk now
   */
  measure(): Promise<number>;
  /**
   * Makes the disk at least `size` bytes. The new bytes read as zeros and take no space. Durable if each write is.
   * @throws NO_SPACE
   */
  grow(size: number): Promise<void>;
}

/** An image that a driver has opened. Calls may overlap freely; no call waits for another. */
export interface RawDisk {
  /**
   * bytes: above 0, at most Number.MAX_SAFE_INTEGER; need not be a multiple of a sector. Fixed while open, except that
   * `growth` makes it larger
   */
  readonly size: number;
  /** set if the disk can become larger, because its file can */
  readonly growth?: Growth;
  /**
   * Set if the disk is runs of open files: in order, without gaps, all of the disk as it was when it was opened. Threads
   * then serve the disk without calling the driver, so the calls below must do only what segmentsDisk does.
   */
  readonly segments?: readonly Segment[];
  /**
   * Set if a map tells where the bytes are. Threads then serve what the map knows, and the calls below tell the map what
   * they find out. A disk has segments or a map, not both.
   */
  readonly map?: MapView;
  /** Set if a disk without segments can tell more than what is a hole. Not used for a disk with segments. */
  readonly places?: Places;
  /**
   * What the format calls this image, for images made on top of it: their own headers say which image they expect below.
   * For vhd the unique id, for vmdk the content id, in hexadecimal; for vhdx the DataWriteGuid.
   */
  readonly identity?: string;
  /**
   * Fills the whole buffer from `offset`, or throws. If the image has shrunk, it must throw (EIO), not return zeros.
   */
  read(buffer: Uint8Array, offset: number): Promise<void>;
  /** Writes the whole buffer at `offset`, or throws. If omitted, the disk is read-only. */
  write?(buffer: Uint8Array, offset: number, options: WriteOptions): Promise<void>;
  /** Resolves when all acknowledged writes are durable. If omitted, there is nothing to flush. */
  flush?(): Promise<void>;
  /** Makes the range read as zeros. If omitted, disk.ts writes zeros. */
  zero?(offset: number, length: number, options: ZeroOptions): Promise<void>;
  /**
   * Describes the range in order and without gaps; may describe more or less of it. If omitted, all is data. A disk with
   * `places` has it from them: see placedBy.
   */
  extents?(offset: number, length: number): Promise<Extent[]>;
  /**
   * For a disk over a base that it does not write: the first changes in the range, in order and without overlaps, each
   * inside the range; at least one if there is any. The caller goes on after the last one. A change may have the same
   * bytes as the base.
   */
  changes?(offset: number, length: number): Promise<Change[]>;
  /**
   * For a disk over a base: moves what the disk has over it into the base. The base must be open for writing; it grows if
   * it is smaller and can. Other calls go on meanwhile, and the disk has the same bytes at every moment, also after a power
   * cut. What is written meanwhile may stay in the disk. If it rejects, what was moved until then stays in the base.
   * @throws FusetapError NO_SPACE if the base is full; the signal's reason when aborted
   */
  commit?(context: CommitContext): Promise<void>;
  /**
   * Is called once, before the first call that reads or changes the disk: no other process serves it any more then.
   * `open` may run while a server that is being replaced still writes, so `open` reads only what cannot change, and
   * `activate` reads the rest. If it rejects, the calls that need it fail with its error, and the next one calls it again. A disk with `activate` must
   * not let threads serve what can change: its map begins with what cannot. If a driver above reads this disk in its
   * own `open`, the disk is activated then.
   */
  activate?(): Promise<void>;
  /**
   * For a remote disk: makes calls that wait fail with EIO, and all later ones too. It is called when the vbd is detached by
   * force.
   */
  giveUp?(): void;
  /** Is called once, when no other call is under way. */
  close(): Promise<void>;
}

/**
 * Where the bytes of a disk lie: for the map of a driver above, and for people (`fusetap map`). If the disk is only read,
 * they stay there while it is open.
 */
export interface Places {
  /** the files that `locate` names by their index */
  readonly files: readonly MapFile[];
  /** Describes the range in order and without gaps; may describe less of it, but at least its first byte. */
  locate(offset: number, length: number, options?: LocateOptions): Promise<readonly Place[]>;
}

export interface LocateOptions {
  /** look also for holes of the files: `data` that lies in one is `zeros` then. Slower; default: false */
  readonly holes?: boolean;
}

export interface Place {
  readonly offset: number;
  readonly length: number;
  /** `unknown`: only `read` of the disk finds the bytes */
  readonly state: 'zeros' | 'data' | 'unknown';
  /** the index of the file that has a place for the range, as also some zeros have; null: none */
  readonly file: number | null;
  /** the first byte there, before the `delta` of the file is added */
  readonly place: number;
  /** how many disks down the range is: 0 in this one, 1 in its backing file or base … */
  readonly depth: number;
  /**
   * `absent`: zeros, because no disk has the range; `allocated`: zeros, but the image has it as data, in a hole of its file;
   * `compressed`: unknown for this reason
   */
  readonly detail?: 'absent' | 'allocated' | 'compressed';
}

/** A disk that is a part of a mapped disk: its byte 0 is the byte `start` of the map. */
export interface MapView {
  readonly map: DiskMap;
  readonly start: number;
  readonly readOnly: boolean;
}

/**
 * A disk of `size` bytes. Requests may have any alignment and length. Offsets and lengths are in bytes.
 *
 * Every call may reject with a FusetapError: the driver's own error, with `operation` and `offset` filled in; errno
 * EBADF after close; code DENIED with errno EROFS for a call that writes to a read-only disk. Invalid arguments
 * (negative, fractional, NaN, not a Uint8Array) are a RangeError or TypeError. Calls may overlap; a read that starts
 * after a write has resolved sees the written bytes (coherence rule 6).
 */
export interface Disk {
  /** bytes: fixed (coherence rule 7), except that `growth` makes it larger */
  readonly size: number;
  readonly readOnly: boolean;
  /** set if the disk can become larger; undefined if it is read-only */
  readonly growth: Growth | undefined;
  /**
   * set if the disk is runs of open files, so that threads can serve it; read-only if the disk is. They have the size
   * with which the disk was opened
   */
  readonly segments: readonly Segment[] | undefined;
  /** set if a map tells threads where the bytes are; read-only if the disk is */
  readonly map: MapView | undefined;
  /** where its bytes are; `unknown`, without files, if it cannot tell */
  readonly places: Places;
  /** see RawDisk.identity; undefined if the format has none */
  readonly identity: string | undefined;
  /**
   * Resolves to the count of bytes read: the whole range, except that it is cut at the end of the disk (0 beyond it).
   */
  read(buffer: Uint8Array, offset: number): Promise<number>;
  /**
   * Resolves to the count of bytes written: all, except that the range is cut at the end of the disk. A write that
   * starts at or beyond the end is NO_SPACE, errno ENOSPC. After an error any part of the range may have been written.
   */
  write(buffer: Uint8Array, offset: number, options?: Partial<WriteOptions>): Promise<number>;
  /** Resolves when every write acknowledged before the call is as durable as the driver can make it (rule 5). */
  flush(): Promise<void>;
  /** Makes the range read as zeros; the part beyond the end of the disk is ignored (rule 7). */
  zero(offset: number, length: number, options?: Partial<ZeroOptions>): Promise<void>;
  /** The range as extents: in order, without gaps, data and hole alternating, nothing beyond the end of the disk. */
  extents(offset: number, length: number): Promise<Extent[]>;
  /**
   * The first ranges that differ from the base of the disk: in order, inside the range and the disk. Go on after the last
   * one; if there is none, no more follow. UNSUPPORTED if the disk has no base.
   */
  changes(offset: number, length: number): Promise<Change[]>;
  /**
   * Moves what the disk has over its base into the base: see RawDisk.commit. UNSUPPORTED if it has no base; DENIED if the
   * disk or the base is read-only.
   */
  commit(context: CommitContext): Promise<void>;
  /** For a remote disk: see RawDisk.giveUp. A driver above it passes it on. Others ignore it. */
  giveUp(): void;
  /** Waits for the calls under way, then closes the driver's disk. A second call has the same outcome. */
  close(): Promise<void>;
}
