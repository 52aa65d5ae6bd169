/** What a target is: a way from an image to a path that is the disk. */
import type { Undo } from '../undo.js';

export interface Place {
  /** filled with data; the target's own */
  readonly imagePath: string;
  readonly sizeBytes: number;
  /** empty, for sockets and mountpoints */
  readonly directory: string;
  /** every step that leaves something on the machine is noted here at once */
  readonly undo: Undo;
}

export interface Served {
  /** file or block device */
  readonly path: string;
  /** the processes that serve it; none where the kernel does */
  readonly pids: readonly number[];
  /** Takes it away in the proper manner; returns when it is gone. */
  stop(): Promise<void>;
}

export interface Target {
  readonly name: string;
  readonly description: string;
  /** it reads the whole image at its start, so that it is never cold */
  readonly holdsImageInMemory?: boolean;
  /** why there must be no loop device on it */
  readonly noLoop?: string;
  /** What it lacks on this machine, or null. */
  findMissing(): Promise<string | null>;
  /** Returns when the path can be read. Throws UNSUPPORTED where this machine cannot; `undo` mends what was begun. */
  start(place: Place): Promise<Served>;
}
