/**
 * What keeper and server say to each other, over the channel that Node opens between parent and child.
 *
 *      keeper ── Command {id, …} ──► server
 *      keeper ◄── done | failed {id} ── server        one for each command
 *      keeper ◄── loaded | progress | forgotten | gone ── server
 *
 * Descriptors never travel: the server opens what the keeper holds through /proc/KEEPER/fd/N.
 */
import type { Json } from '../../drivers/driver.js';
import type { PlainError } from '../../drivers/errors.js';
import type { Mode, TransportName } from './interface.js';

/** The server's only argument. */
export interface ServerStart {
  readonly bus: string;
  readonly transport: TransportName;
  readonly mountpoint: string;
  readonly keeperPid: number;
  /** the server's own descriptors, inherited */
  readonly ledgerFd: number;
  /** keeps the lock on the bus for as long as either process lives */
  readonly lockFd: number;
  readonly deviceFds: readonly number[];
  readonly owner: { readonly uid: number; readonly gid: number; readonly sinceMs: number };
}

/** An image that the keeper holds open. */
export interface ImageRef {
  /** a descriptor of the keeper */
  readonly fd: number;
  readonly path: string;
  readonly sizeBytes: number;
  readonly kind: 'file' | 'block';
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

export interface AttachCommand {
  readonly op: 'attach';
  readonly nodeId: number;
  readonly ledgerIndex: number;
  readonly name: string;
  readonly driver: string;
  readonly mode: Mode;
  readonly image: ImageRef | null;
  readonly memoryFd: number | null;
  readonly state: Json | null;
  readonly options: Readonly<Record<string, string>>;
  /** an earlier server had the file: what the kernel holds of it is not known */
  readonly inherited: boolean;
  /** see Transport.setLeaving */
  readonly leaving: boolean;
}

/** Each command with what it resolves to. */
export interface Commands {
  describe: { command: { readonly op: 'describe'; readonly driver: string }; result: DriverFacts };
  prepare: { command: PrepareCommand; result: { state: Json } };
  /** stops the command of that id, where it can be stopped */
  cancel: { command: { readonly op: 'cancel'; readonly target: number }; result: null };
  /** begins to read requests */
  start: { command: { readonly op: 'start' }; result: null };
  ping: { command: { readonly op: 'ping' }; result: null };
  attach: { command: AttachCommand; result: { size: number } };
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
  | { readonly kind: 'done'; readonly id: number; readonly result: unknown }
  | { readonly kind: 'failed'; readonly id: number; readonly error: PlainError }
  | { readonly kind: 'progress'; readonly id: number; readonly doneBytes: number; readonly totalBytes: number }
  | { readonly kind: 'forgotten'; readonly nodeId: number }
  /** the mount went away by somebody else's hand */
  | { readonly kind: 'gone' };
