/**
 * The contract that both transports keep: how the server turns disks into files of the bus.
 *
 * A transport serves a flat directory. It is given files with their disks; the kernel (or libfuse) asks it for them.
 */
import type { Disk } from '../../drivers/disk.js';
import type { FileAttributes } from '../ledger/ledger.js';

/** What a transport can do beyond reading and writing; the end-to-end tests skip what is missing, with a line. */
export interface Abilities {
  /** requests survive the death of the server */
  readonly restart: boolean;
  /** the kernel can be given the image itself */
  readonly passthrough: boolean;
  /** fallocate: punch and zero reach the image */
  readonly fallocate: boolean;
  /** lseek SEEK_DATA and SEEK_HOLE */
  readonly seekData: boolean;
  /** programs that take the file for a block device are told its size (BLKGETSIZE64) */
  readonly sizeIoctl: boolean;
  /** one of access and modification time can be set without the other */
  readonly singleTimes: boolean;
}

/** A vbd as the transport serves it. */
export interface BusFile {
  /** never reused while the bus lives; 2 and up */
  readonly nodeId: number;
  /** the file's record in the ledger */
  readonly ledgerIndex: number;
  /** the vdev */
  readonly name: string;
  readonly disk: Disk;
  /** an earlier server had the file, so the kernel may hold references to it that this one never saw */
  readonly inherited: boolean;
  /** the kernel's id of the image, where it does the I/O itself; see "Passthrough" in docs/architecture.md */
  readonly backingId: number | null;
  /** an open file that has the disk's bytes, where the driver writes to one */
  readonly bytesFd?: number | null;
  /** others may write the same bytes, whatever fusetap knows of them (mode w!) */
  readonly isShared?: boolean;
}

/** What the transport tells the server. */
export interface TransportEvents {
  /** nobody holds the file any more: no open handle, mapping, O_PATH or cached entry */
  forgotten(nodeId: number): void;
  /** a thread wants to fill holes of this file's memory beyond what it may: the ledger says how much */
  memoryWanted(nodeId: number): void;
  /** the mount is gone, by somebody else's hand */
  gone(): void;
  /** a program was refused another size for a file of that name */
  resizeRefused(name: string, size: number): void;
}

export interface Transport {
  readonly abilities: Abilities;
  /** Gets everything ready that takes time; resolves when `start` would answer at once. */
  load(): Promise<void>;
  /** Begins to answer requests. */
  start(): void;
  /** Makes the file appear. */
  add(file: BusFile): Promise<void>;
  /**
   * Hides the file from new opens (they get ENOENT), or shows it again.
   * @returns whether anybody may still hold it; false is certain
   */
  setLeaving(nodeId: number, leaving: boolean): boolean;
  /**
   * Lets I/O of the file wait; resolves when none is under way. Of a file that is passed through, opens wait instead:
   * nobody may have it open.
   */
  hold(nodeId: number): Promise<void>;
  /** Answers what has waited, and all that comes. */
  release(nodeId: number): void;
  /** Gives a file that is held another disk of the same size: handles and mappings live on. */
  swap(nodeId: number, bytes: Pick<BusFile, 'disk' | 'bytesFd'>): Promise<void>;
  /** This server will not be replaced again: stop doing anything that could crash it. */
  noSuccessor(): void;
  /** Makes the kernel drop the inode of a file that is passed through, at the next lookup: its handles get EIO. */
  makeKernelForget(nodeId: number): void;
  /** Takes the file away; when the promise resolves, no request for its disk is under way. Later ones get EIO. */
  remove(nodeId: number): Promise<void>;
}

/** What stat(2) tells of a file of the bus. */
export interface Attributes extends FileAttributes {
  nodeId: number;
  size: number;
  /** 512-byte units */
  blocks: number;
  links: number;
}
