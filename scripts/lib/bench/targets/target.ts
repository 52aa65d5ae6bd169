/** A target: a way to make an image available as a disk at a path. */
import type { Undo } from '../undo.js';

export interface Place {
  /** an image of its own, filled with data */
  readonly imagePath: string;
  readonly sizeBytes: number;
  /** an empty directory for sockets and mount points */
  readonly directory: string;
  /** records at once every step that leaves something on the machine */
  readonly undo: Undo;
}

export interface Served {
  /** a file or block device; or the URI of an NBD export or of an image in Ceph, for fio's own client */
  readonly path: string;
  /** the processes that serve it; none if the kernel does */
  readonly pids: readonly number[];
  /** Ends it cleanly; returns when it is gone. */
  stop(): Promise<void>;
}

export interface Target {
  readonly name: string;
  readonly description: string;
  /** it reads the whole image at its start, so it is never cold */
  readonly holdsImageInMemory?: boolean;
  /** why there must be no loop device on it */
  readonly noLoop?: string;
  /** What is missing on this machine, or null. */
  findMissing(): Promise<string | null>;
  /** Returns when the path can be read. Throws UNSUPPORTED if this machine cannot do it; `undo` then cleans up. */
  start(place: Place): Promise<Served>;
}
