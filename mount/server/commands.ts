/**
 * The messages between keeper and server, over the channel that Node opens between parent and child.
 *
 *      keeper ── Command {id, …} ──► server
 *      keeper ◄── done | failed {id} ── server        one for each command
 *      keeper ◄── loaded | progress | forgotten | gone ── server
 *
 * The descriptors that a command needs are sent on a socket of their own: see passed-fds.ts. Commands name them by
 * their numbers in the keeper.
 */
import type { ConnectionState, Json, Window } from '../../drivers/driver.js';
import type { PlainError } from '../../drivers/errors.js';
import type { FilterSpec } from '../../drivers/filters/filter.js';
import type { Measured, NodeNeed } from '../../drivers/graph/open-graph.js';
import type { GraphPlan } from '../../drivers/graph/plan.js';
import type { NodeSpec } from '../../drivers/graph.js';
import type { MapExtent, ToldExtents } from '../../drivers/map/map-extents.js';
import type { PartitionTable, SectorBytes } from '../../drivers/partitions/index.js';
import type { ChangesResult, TransportName, VbdInfo } from '../control/interface.js';
import type { Mode } from '../images/mode.js';
import type { RamLink } from '../ram/links.js';
import type { BusPlace } from '../runtime/bus-place.js';
import type { NamesOfFile } from '../transport/transport.js';

/** The server's only argument. */
export interface ServerStart {
  readonly place: BusPlace;
  readonly transport: TransportName;
  readonly keeperPid: number;
  /** descriptors that the server inherits, by their numbers in the server */
  readonly ledgerFd: number;
  readonly statsFd: number;
  /** keeps the lock on the bus as long as either process lives */
  readonly lockFd: number;
  readonly deviceFds: readonly number[];
  /** kept open, not used: when no process has it open any more, a helper unmounts; null if there is no helper */
  readonly aliveFd: number | null;
  /** the socket over which descriptors are sent; if omitted, the keeper is older and sends none */
  readonly passingFd?: number;
  /** other users may use the bus */
  readonly allowOther: boolean;
  /** images on tmpfs may be mapped; false after a server has died because a mapped image shrank */
  readonly mapsFiles: boolean;
  readonly owner: { readonly uid: number; readonly gid: number; readonly sinceMs: number };
}

/** An image that the keeper has open. */
export interface ImageRef {
  /** a descriptor number of the keeper */
  readonly fd: number;
  readonly path: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'block';
  /** `device:inode`, as in bus.json */
  readonly identity?: string;
  /** its name in its directory: the last part of its path without symbolic links; default: the last part of `path` */
  readonly name?: string;
  /** how it is open and claimed; default: as the vbd is */
  readonly mode?: Mode;
}

/** The memory of a node of a disk. */
export interface MemoryRef {
  /** a descriptor number of the keeper, of a memfd */
  readonly fd: number;
  /** the link by which others find that ram image; the server publishes it again if the keeper dies; null: for nobody else */
  readonly link: RamLink | null;
  /** what `prepare` returned */
  readonly state: Json | null;
}

/**
 * The tree of a disk with what is open for it, by paths. Keepers of older versions omit it and have a disk of one driver:
 * see older-keepers.ts.
 */
export interface GraphRef {
  readonly graph: NodeSpec;
  readonly files: Readonly<Record<string, ImageRef>>;
  readonly memories: Readonly<Record<string, MemoryRef>>;
  /** the nodes that were repaired at this attach, by path; default: none (an older keeper omits it) */
  readonly repaired?: readonly string[];
  /** see OpenedGraph.writes */
  readonly writes?: string;
  /** what drivers of remote disks keep beyond a server; an older keeper cannot keep it */
  readonly kept?: KeptRef;
}

/** What the drivers of a disk have kept: see Host.keep. */
export interface KeptRef {
  /** names the disk in messages of the server */
  readonly id: number;
  /** of the file in the runtime directory by which the disk is claimed: its identity, and a descriptor of the keeper */
  readonly claim: { readonly identity: string; readonly fd: number };
  /** by the paths of their nodes; the descriptors are numbers of the keeper */
  readonly nodes: Readonly<Record<string, { readonly facts: Json; readonly fds: readonly number[] }>>;
}

/** What an older keeper asks before an attach, in place of `plan`; also checks that the filters exist. */
export interface DescribeCommand {
  readonly op: 'describe';
  readonly driver: string;
  readonly filters?: readonly FilterSpec[];
}

/** The answer to `describe`. */
export interface DriverFacts {
  readonly image: 'required' | 'none';
  readonly sharesMemory: boolean;
  readonly rawImage: boolean;
}

export interface PlanCommand {
  readonly op: 'plan';
  readonly graph: NodeSpec;
  readonly filters: readonly FilterSpec[];
}

/** Asks what the images of a disk need besides what is open. */
export interface NeedsCommand {
  readonly op: 'needs';
  readonly disk: GraphRef;
  /** the paths of optional needs that are not there */
  readonly absent: readonly string[];
}

/** Fills the memory of a node. */
export interface PrepareCommand {
  readonly op: 'prepare';
  readonly disk: GraphRef;
  /** the path of the node */
  readonly node: string;
  /** a descriptor number of the keeper, of a memfd */
  readonly memoryFd: number;
  /** of the image, for messages */
  readonly path: string;
}

/** Lets the driver of a node finish what a crash left behind, before the disk is opened. */
export interface RepairCommand {
  readonly op: 'repair';
  /** its files are open for writing; the nodes below are repaired already */
  readonly disk: GraphRef;
  /** the path of the node */
  readonly node: string;
  /** of the image, for messages */
  readonly path: string;
}

export type MeasureCommand = Omit<PrepareCommand, 'op' | 'memoryFd'> & { readonly op: 'measure' };

/** Copies a disk to a file of the same size, or to a FIFO. */
export interface SaveCommand {
  readonly op: 'save';
  readonly nodeId: number;
  /** a descriptor number of the keeper, of an empty file or of a FIFO */
  readonly targetFd: number;
  /** the target is a FIFO: all bytes are written, in order */
  readonly isFifo?: boolean;
}

/** Copies a disk to another one of the same size, which is opened for that and closed after it. */
export interface CopyToCommand {
  readonly op: 'copyTo';
  readonly nodeId: number;
  /** of the target; what it has is overwritten */
  readonly attach: AttachCommand;
}

/** Whether the target of such a copy has data. */
export type HasDataCommand = Omit<CopyToCommand, 'op'> & { readonly op: 'hasData' };

/** Moves what a disk has over its base into the base, which is open for writing. */
export interface CommitCommand {
  readonly op: 'commit';
  readonly nodeId: number;
}

/** Asks where a disk differs from its base. */
export interface ChangesCommand {
  readonly op: 'changes';
  readonly nodeId: number;
  readonly offset: number;
  readonly length: number;
}

/** Asks what the ranges of a disk are. */
export interface MapCommand {
  readonly op: 'map';
  readonly nodeId: number;
  readonly offset: number;
  readonly length: number;
}

/** An extent whose file is known by its path in the tree of the disk. */
export interface TreeExtent extends Omit<MapExtent, 'filename'> {
  readonly file: string | null;
}

export interface AttachCommand {
  readonly op: 'attach';
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly name: string;
  /** of the top, for messages */
  readonly driver: string;
  readonly mode: Mode;
  readonly disk: GraphRef;
  /** default: none (an older keeper omits it) */
  readonly filters?: readonly FilterSpec[];
  /** its size in an earlier server: if it cannot be opened again, a broken disk of this size replaces it */
  readonly size?: number;
  /** why the disk must not be opened: every request fails with EIO */
  readonly broken?: string;
}

export interface AttachResult {
  readonly size: number;
  readonly window: WindowFacts | null;
  /** the path of the file that the window is in; null if it is in memory, or there is no window */
  readonly windowFile: string | null;
  /** it cannot be written: by its mode, or because its driver cannot */
  readonly readOnly: boolean;
  /** why a disk that an earlier server had open could not be opened: every request fails with EIO; null if it could */
  readonly broken: string | null;
}

/** Gives a paused vbd another image. */
export interface SwapCommand {
  readonly op: 'swap';
  /** opens the new disk, with the node id of the old one */
  readonly attach: AttachCommand;
  readonly facts: VbdFacts;
}

/** Gives a vbd other partitions. Those that stay keep their nodes; the others are not in use. */
export interface RepartitionCommand {
  readonly op: 'repartition';
  readonly nodeId: number;
  /** all partitions that the vbd has then */
  readonly partitions: readonly PartitionRef[];
  readonly facts: VbdFacts;
}

/** Opens the disk of a vbd again: its image has grown, or its base is opened for writing or not any more. */
export interface ResizeCommand {
  readonly op: 'resize';
  /** with the size that the disk has then */
  readonly attach: AttachCommand;
  readonly facts: VbdFacts;
}

/** A window without its descriptor, whose number means nothing in the keeper. */
export type WindowFacts = Omit<Window, 'fd'>;

/** A partition of a disk. */
export interface PartitionRef {
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  /** it may only be read, whatever the mode of its disk; default: false */
  readonly readOnly?: boolean;
  /** see Transport.setLeaving */
  readonly leaving: boolean;
}

/** Reads a partition table. */
export interface PartitionsCommand {
  readonly op: 'partitions';
  readonly nodeId: number;
  /**
   * the sectors in which the table counts; null: find out. A keeper that omits it is older: it would show partitions for
   * writing that may only be read
   */
  readonly sectorBytes?: SectorBytes | null;
}

/** Makes the files of an open disk and of its partitions appear. */
export interface ShowCommand {
  readonly op: 'show';
  readonly nodeId: number;
  readonly backingId: number | null;
  /** see BusFile.mapId; an older keeper omits it */
  readonly mapId?: number | null;
  /** an earlier server has shown the file: how many references the kernel has to it is not known */
  readonly inherited: boolean;
  /** see Transport.setLeaving */
  readonly leaving: boolean;
  /** see Transport.pause */
  readonly held: boolean;
  /** the owners of the pause: see pauses.ts; if omitted, not known */
  readonly holders?: readonly string[];
  /** attached, paused and detached with the disk; default: none */
  readonly partitions?: readonly PartitionRef[];
  /** used if the keeper dies */
  readonly facts: VbdFacts;
}

/** The facts about a vbd that do not change while it is attached. */
export type VbdFacts = Omit<
  VbdInfo,
  | 'state'
  | 'opens'
  | 'keeperPid'
  | 'serverPid'
  | 'restarts'
  | 'changedOutside'
  | 'broken'
  | 'imageState'
  | 'writtenOutside'
  | 'movedTo'
  | 'deleted'
  | 'version'
  | 'detachesWhenUnused'
  | 'pausedByUser'
>;

/** Each command with its result. */
export interface Commands {
  /** also checks that the drivers and filters exist, before anything is opened */
  plan: { command: PlanCommand; result: GraphPlan };
  /** of an older keeper, in place of `plan` */
  describe: { command: DescribeCommand; result: DriverFacts };
  needs: { command: NeedsCommand; result: { needs: NodeNeed[] } };
  /** how many bytes of memory `prepare` will use at most */
  measure: { command: MeasureCommand; result: Measured };
  prepare: { command: PrepareCommand; result: { state: Json } };
  /** notes: remarks for the user */
  repair: { command: RepairCommand; result: { notes: readonly string[] } };
  save: { command: SaveCommand; result: null };
  copyTo: { command: CopyToCommand; result: null };
  hasData: { command: HasDataCommand; result: { hasData: boolean } };
  commit: { command: CommitCommand; result: null };
  /** UNSUPPORTED if the disk has no base */
  changes: { command: ChangesCommand; result: ChangesResult };
  map: { command: MapCommand; result: ToldExtents<TreeExtent> };
  /** what the files of the bus hold, and their names */
  names: { command: { readonly op: 'names' }; result: { files: readonly NamesOfFile[] } };
  /** for how long the oldest read for names has been under way; 0: there is none */
  nameReads: { command: { readonly op: 'nameReads' }; result: { oldestMs: number } };
  /** cancels the command of that id, if it can be cancelled */
  cancel: { command: { readonly op: 'cancel'; readonly target: number }; result: null };
  /** begins to read requests */
  start: { command: { readonly op: 'start' }; result: null };
  ping: { command: { readonly op: 'ping' }; result: null };
  /** opens the disk; its file appears with `show` */
  attach: { command: AttachCommand; result: AttachResult };
  /** reads the partition table of an open disk */
  partitions: { command: PartitionsCommand; result: PartitionTable };
  show: { command: ShowCommand; result: null };
  swap: { command: SwapCommand; result: null };
  repartition: { command: RepartitionCommand; result: null };
  /** the size that the disk of this command would have; opens it, and closes it again */
  sizeOf: { command: { readonly op: 'sizeOf'; readonly attach: AttachCommand }; result: { size: number } };
  resize: { command: ResizeCommand; result: null };
  /** pauses I/O; if it is paused already, changes only the owners of the pause */
  hold: {
    command: { readonly op: 'hold'; readonly nodeId: number; readonly holders?: readonly string[] };
    result: null;
  };
  /** resumes I/O */
  release: { command: { readonly op: 'release'; readonly nodeId: number }; result: null };
  /** see Transport.makeKernelForget */
  poison: { command: { readonly op: 'poison'; readonly nodeId: number }; result: null };
  /** see Transport.setLeaving */
  leave: {
    command: { readonly op: 'leave'; readonly nodeId: number; readonly leaving: boolean };
    result: { held: boolean };
  };
  /** the keeper has what a `keep` message has sent; error: why it has not (an older keeper does not answer then) */
  kept: { command: { readonly op: 'kept'; readonly number: number; readonly error?: PlainError }; result: null };
  /** see RawDisk.giveUp */
  giveUp: { command: { readonly op: 'giveUp'; readonly nodeId: number }; result: null };
  /** removes the file, flushes and closes its disk; flushError: why acknowledged writes may be lost */
  detach: {
    /** isUnused: no request has come, so there is nothing to flush; default: false */
    command: { readonly op: 'detach'; readonly nodeId: number; readonly isUnused?: boolean };
    result: { flushError: PlainError | null };
  };
}

export type Command = Commands[keyof Commands]['command'];
export type CommandResult<Op extends keyof Commands> = Commands[Op]['result'];

/** keeper → server */
export type Envelope = { readonly id: number; readonly command: Command };

/** server → keeper */
export type ServerMessage =
  /** the server takes commands; an older server does not tell its version */
  | { readonly kind: 'loaded'; readonly version?: string }
  /** the server will never take commands: something that it needs is missing */
  | { readonly kind: 'unable'; readonly error: PlainError }
  | { readonly kind: 'done'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: PlainError }
  | { readonly kind: 'progress'; readonly id: number; readonly doneBytes: number; readonly totalBytes: number }
  | { readonly kind: 'forgotten'; readonly nodeId: number }
  /** a thread wants to fill holes of this vbd's ram image; see mount/ram/growth.ts */
  | { readonly kind: 'memory-wanted'; readonly nodeId: number }
  /** a driver wants to keep this, with descriptors that were sent under this number: see passed-fds.ts */
  | ({ readonly kind: 'keep'; readonly number: number } & KeptNode)
  /** a remote disk can be reached, or not any more */
  | { readonly kind: 'connection'; readonly keptId: number; readonly state: ConnectionState }
  /** somebody else has removed the mount */
  | { readonly kind: 'gone' };

/** What a driver keeps, of which disk. */
export interface KeptNode {
  readonly keptId: number;
  /** the path of the node */
  readonly node: string;
  readonly facts: Json;
}
