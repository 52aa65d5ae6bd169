/**
 * What keeper and server say to each other, over the channel that Node opens between parent and child.
 *
 *      keeper ── Command {id, …} ──► server
 *      keeper ◄── done | failed {id} ── server        one for each command
 *      keeper ◄── loaded | progress | forgotten | gone ── server
 *
 * The descriptors that a command needs come beside it, on a socket of their own: see passed-fds.ts. Commands name them by
 * the numbers that they have in the keeper.
 */
import type { Json, Window } from '../../drivers/driver.js';
import type { PlainError } from '../../drivers/errors.js';
import type { FilterSpec } from '../../drivers/filters/filter.js';
import type { PartitionTable } from '../../drivers/partitions/index.js';
import type { TransportName, VbdInfo } from '../control/interface.js';
import type { Mode } from '../images/mode.js';
import type { RamLink } from '../ram/links.js';
import type { BusPlace } from '../runtime/bus-place.js';

/** The server's only argument. */
export interface ServerStart {
  readonly place: BusPlace;
  readonly transport: TransportName;
  readonly keeperPid: number;
  /** the server's own descriptors, inherited */
  readonly ledgerFd: number;
  readonly statsFd: number;
  /** keeps the lock on the bus for as long as either process lives */
  readonly lockFd: number;
  readonly deviceFds: readonly number[];
  /** not used: while anybody has it open the mount stays; null where nothing waits for its end */
  readonly aliveFd: number | null;
  /** brings the descriptors of commands; missing: an older keeper, which passes none on */
  readonly passingFd?: number;
  /** other users may come in */
  readonly allowOther: boolean;
  /** images on tmpfs may be mapped: false where a server has died of one that shrank */
  readonly mapsFiles: boolean;
  readonly owner: { readonly uid: number; readonly gid: number; readonly sinceMs: number };
}

/** An image that the keeper holds open. */
export interface ImageRef {
  /** a descriptor of the keeper */
  readonly fd: number;
  readonly path: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'block';
  /** `device:inode`, as the keeper writes it down */
  readonly identity?: string;
}

/** What the keeper must know of a driver to attach with it. */
export interface DriverFacts {
  readonly image: 'required' | 'none';
  readonly sharesMemory: boolean;
}

export interface PrepareCommand {
  readonly op: 'prepare';
  readonly driver: string;
  readonly image: ImageRef | null;
  /** a memfd of the keeper */
  readonly memoryFd: number;
  readonly options: Readonly<Record<string, string>>;
}

/** Copies a disk to a file of the same size. */
export interface SaveCommand {
  readonly op: 'save';
  readonly nodeId: number;
  /** a descriptor of the keeper, of an empty file */
  readonly targetFd: number;
}

export interface AttachCommand {
  readonly op: 'attach';
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly name: string;
  readonly driver: string;
  readonly mode: Mode;
  readonly image: ImageRef | null;
  readonly memoryFd: number | null;
  /** where others find that memory, to be published again if the keeper dies */
  readonly memoryLink?: RamLink | null;
  readonly state: Json | null;
  readonly options: Readonly<Record<string, string>>;
  /** missing: none, as an older keeper says it */
  readonly filters?: readonly FilterSpec[];
  /** where an earlier server had the disk, its size: a disk that does not come back must not keep the others away */
  readonly size?: number;
  /** why it is not even tried: every request is EIO */
  readonly broken?: string;
}

export interface AttachResult {
  readonly size: number;
  readonly window: WindowFacts | null;
  /** why a disk that an earlier server had did not come back: every request is EIO; null where it is well */
  readonly broken: string | null;
}

/** Puts another image under a vbd whose I/O is held. */
export interface SwapCommand {
  readonly op: 'swap';
  /** opens the new disk, with the node id of the old one */
  readonly attach: AttachCommand;
  readonly facts: VbdFacts;
}

/** A window without its descriptor, which means nothing to the keeper. */
export type WindowFacts = Omit<Window, 'fd'>;

/** A partition of a disk. */
export interface PartitionRef {
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly name: string;
  readonly offset: number;
  readonly size: number;
  /** see Transport.setLeaving */
  readonly leaving: boolean;
}

/** Makes the file of an opened disk appear, and those of its partitions. */
export interface ShowCommand {
  readonly op: 'show';
  readonly nodeId: number;
  readonly backingId: number | null;
  /** an earlier server had the file: what the kernel holds of it is not known */
  readonly inherited: boolean;
  /** see Transport.setLeaving */
  readonly leaving: boolean;
  /** see Transport.hold */
  readonly held: boolean;
  /** see pauses.ts; missing: not known */
  readonly holders?: readonly string[];
  /** all come and go with the disk, and are held with it; missing: none */
  readonly partitions?: readonly PartitionRef[];
  /** for the case that the keeper dies */
  readonly facts: VbdFacts;
}

/** What stays true of a vbd for as long as it is attached. */
export type VbdFacts = Omit<
  VbdInfo,
  'state' | 'opens' | 'keeperPid' | 'serverPid' | 'restarts' | 'changedOutside' | 'broken' | 'imageState'
>;

/** Each command with what it resolves to. */
export interface Commands {
  /** also whether there are such filters, before anything is opened */
  describe: {
    command: { readonly op: 'describe'; readonly driver: string; readonly filters?: readonly FilterSpec[] };
    result: DriverFacts;
  };
  /** how many bytes of memory `prepare` will take at most */
  measure: {
    command: Omit<PrepareCommand, 'op' | 'memoryFd'> & { readonly op: 'measure' };
    result: { bytes: number };
  };
  prepare: { command: PrepareCommand; result: { state: Json } };
  save: { command: SaveCommand; result: null };
  /** stops the command of that id, where it can be stopped */
  cancel: { command: { readonly op: 'cancel'; readonly target: number }; result: null };
  /** begins to read requests */
  start: { command: { readonly op: 'start' }; result: null };
  ping: { command: { readonly op: 'ping' }; result: null };
  /** opens the disk; its file appears with `show` */
  attach: { command: AttachCommand; result: AttachResult };
  /** what the partition table of an opened disk says */
  partitions: { command: { readonly op: 'partitions'; readonly nodeId: number }; result: PartitionTable };
  show: { command: ShowCommand; result: null };
  swap: { command: SwapCommand; result: null };
  /** of what is held already, only for whom */
  hold: {
    command: { readonly op: 'hold'; readonly nodeId: number; readonly holders?: readonly string[] };
    result: null;
  };
  release: { command: { readonly op: 'release'; readonly nodeId: number }; result: null };
  poison: { command: { readonly op: 'poison'; readonly nodeId: number }; result: null };
  /** see Transport.setLeaving */
  leave: {
    command: { readonly op: 'leave'; readonly nodeId: number; readonly leaving: boolean };
    result: { held: boolean };
  };
  /** takes the file away, flushes and closes its disk; flushError: acknowledged writes may be lost */
  detach: {
    command: { readonly op: 'detach'; readonly nodeId: number };
    result: { flushError: PlainError | null };
  };
}

export type Command = Commands[keyof Commands]['command'];
export type CommandResult<Op extends keyof Commands> = Commands[Op]['result'];

/** keeper → server */
export type Envelope = { readonly id: number; readonly command: Command };

/** server → keeper */
export type ServerMessage =
  /** takes commands */
  | { readonly kind: 'loaded' }
  /** will never: what it needs is not there */
  | { readonly kind: 'unable'; readonly error: PlainError }
  | { readonly kind: 'done'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: PlainError }
  | { readonly kind: 'progress'; readonly id: number; readonly doneBytes: number; readonly totalBytes: number }
  | { readonly kind: 'forgotten'; readonly nodeId: number }
  /** a thread wants to fill holes of this vbd's memory; see mount/ram/growth.ts */
  | { readonly kind: 'memory-wanted'; readonly nodeId: number }
  /** the mount went away by somebody else's hand */
  | { readonly kind: 'gone' };
