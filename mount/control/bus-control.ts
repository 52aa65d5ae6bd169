import type { Patience } from '../holders/await-free.js';
import type {
  AttachRequest,
  AttachResult,
  BusInfo,
  DetachResult,
  MemoryInfo,
  SaveRequest,
  SaveResult,
  SwapRequest,
  TransportName,
  UpgradeResult,
  VbdInfo,
  VbdStats,
} from './interface.js';
import type { CopyWatcher } from './progress.js';

export interface DetachChoice {
  /** cut off who holds it */
  readonly force: boolean;
  /** how long to wait for them first */
  readonly waitMs: number;
  /** aborted when the client has gone away: the vbd then stays, unless it is being flushed and closed already */
  readonly signal: AbortSignal;
}

export interface PauseChoice {
  /** the copy of its bytes that it is held for; missing: the user wants it */
  readonly copy?: string | undefined;
  /** aborted when the client has gone away: where the vbd is not held yet, it is let go */
  readonly signal: AbortSignal;
}

export interface BusControl {
  /** nothing is attached any more, and nothing can be: its mount and its processes are to go */
  readonly over: boolean;
  info(): Promise<BusInfo>;
  vbds(): Promise<VbdInfo[]>;
  stats(): VbdStats[];
  /** Attaches, and resolves when the file can be opened. */
  attach(request: AttachRequest, watcher: CopyWatcher): Promise<AttachResult>;
  /** Makes a file a consistent copy of a vbd. `path` is absolute. */
  save(vdev: string, request: SaveRequest, watcher: CopyWatcher): Promise<SaveResult>;
  /** Copies the image of a ram vbd afresh. @throws FusetapError BUSY where anybody holds it or shares it */
  reset(vdev: string, watcher: CopyWatcher): Promise<VbdInfo>;
  memory(): MemoryInfo;
  /** Detaches: nobody holds it, its data is durable, its file is gone. @throws FusetapError NOT_FOUND, BUSY */
  detach(vdev: string, choice: DetachChoice): Promise<DetachResult>;
  /**
   * Holds the I/O of a vbd: it waits, without an error, until `resume`.
   */
  pause(vdev: string, choice: PauseChoice): Promise<VbdInfo>;
  resume(vdev: string, copy?: string): Promise<VbdInfo>;
  /** Gives a paused vbd another image of the same size, all or nothing. @throws FusetapError USAGE, BUSY, … */
  swap(vdev: string, request: SwapRequest, watcher: CopyWatcher): Promise<VbdInfo>;
  /** From now on the bus stays when its last vbd goes. One that was given up is mounted anew, and serves what it holds. */
  persist(transport?: TransportName, allowOther?: boolean): Promise<void>;
  /** Puts the code that is installed now under the running bus. */
  upgrade(): Promise<UpgradeResult>;
  /**
   * Detaches all and ends the bus. Nothing is detached where one is busy and `force` is not set.
   * @param patience how long to wait for those who hold one; missing: not at all
   */
  stop(force: boolean, patience?: Patience): Promise<DetachResult>;
}
