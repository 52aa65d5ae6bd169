/**
 * The contract of both transports: how the server turns disks into files of the bus.
 *
 * A transport serves a flat directory. It is given files with their disks and answers requests of the kernel (or
 * libfuse).
 */
import type { Disk } from '../../drivers/disk.js';
import type { SectorBytes } from '../../drivers/partitions/index.js';
import type { FileAttributes } from '../ledger/ledger.js';

/** Optional abilities of a transport. The end-to-end tests skip tests of missing ones, with a remark. */
export interface Abilities {
  /** requests survive a crash of the server */
  readonly restart: boolean;
  /** the kernel can be given the image itself */
  readonly passthrough: boolean;
  /** fallocate: punch and zero reach the image */
  readonly fallocate: boolean;
  /** lseek SEEK_DATA and SEEK_HOLE */
  readonly seekData: boolean;
  /** programs that take the file for a block device get its size (BLKGETSIZE64) */
  readonly sizeIoctl: boolean;
  /** one of access and modification time can be set without the other */
  readonly singleTimes: boolean;
}

/** A vbd for the transport. */
export interface BusFile {
  /** never reused while the bus lives; 2 and up */
  readonly nodeId: number;
  /** the file's record in the ledger */
  readonly ledgerIndex: number;
  /** the record that counts failed flushes: that of the whole vbd, also for a partition, because a flush is of all of it */
  readonly flushIndex: number;
  /** the vdev */
  readonly name: string;
  readonly disk: Disk;
  /** an earlier server had the file, so the kernel may have references to it that this server does not know */
  readonly inherited: boolean;
  /** the kernel's id of the image if it does the I/O itself, else null; see "Passthrough" in docs/architecture.md */
  readonly backingId: number | null;
  /** the kernel's id of the image if the kernel may map it, while this server answers reads; default: null */
  readonly mapId?: number | null;
  /** an open file with the disk's bytes, if the driver writes to one */
  readonly bytesFd?: number | null;
  /** other programs, also unknown ones, may write the same bytes (mode w!) */
  readonly isShared?: boolean;
  /** of a whole disk: the sectors in which its partition table counts; null or omitted: the table tells */
  readonly sectorBytes?: SectorBytes | null;
  /** of a partition: the node id of its disk, and its offset there in bytes */
  readonly part?: { readonly whole: number; readonly offset: number };
}

/** What a file of the bus holds, and its names. A key without a value is null. */
export interface NamesOfFile {
  readonly nodeId: number;
  readonly vdev: string;
  readonly slot: number;
  /** as blkid(8) names it */
  readonly type: string | null;
  readonly usage: 'filesystem' | 'crypto' | 'raid' | 'other' | null;
  readonly label: string | null;
  /** as udev writes it, with unsafe characters as `\x20`: exact even if the label is no UTF-8 */
  readonly labelEncoded: string | null;
  readonly uuid: string | null;
  readonly partlabel: string | null;
  readonly partuuid: string | null;
  /** the disk could not be read now: it may have other names */
  readonly known?: false;
}

/** Events that the transport reports to the server. */
export interface TransportEvents {
  /** the file is not in use any more: no open handle, mapping, O_PATH or cached entry */
  forgotten(nodeId: number): void;
  /** a thread needs credit to fill holes of the file's ram image; the question is in the ledger */
  memoryWanted(nodeId: number): void;
  /** somebody else removed the mount */
  gone(): void;
  /** a program tried to set another size of the file and was refused */
  resizeRefused(name: string, size: number): void;
}

export interface Transport {
  readonly abilities: Abilities;
  /** Does the slow part of the start beforehand; afterwards `start` answers at once. */
  load(): Promise<void>;
  /** Begins to answer requests. */
  start(): void;
  /** Makes the file appear. */
  add(file: BusFile): Promise<void>;
  /**
   * Hides the file from new opens (they get ENOENT), or shows it again.
   * @returns false if the file is certainly not in use
   */
  setLeaving(nodeId: number, leaving: boolean): boolean;
  /**
   * Pauses the file: its I/O waits. Resolves when no I/O is under way. With passthrough opens wait instead, so the file
   * must not be open.
   */
  pause(nodeId: number): Promise<void>;
  /** Resumes the file: answers the requests that waited, and all new ones. */
  resume(nodeId: number): void;
  /**
   * Gives a paused file another disk. Handles stay valid. The kernel cannot map the file any more, so a file with a mapId
   * must not be in use; but if the disk has the same image, the kernel goes on to map that.
   */
  swap(nodeId: number, bytes: Pick<BusFile, 'disk' | 'bytesFd'> & { readonly isSameImage: boolean }): Promise<void>;
  /** This server will not be replaced again: stop doing anything that could crash it. */
  noSuccessor(): void;
  /** Lets the next lookup make the kernel drop all its references to a file with passthrough: its handles get EIO. */
  makeKernelForget(nodeId: number): void;
  /** The names of all files, as far as they can be read within a second. */
  names(): Promise<NamesOfFile[]>;
  /** For how long the oldest read for names has been under way; 0: there is none. */
  oldestNameReadMs(): number;
  /** Removes the file. When the promise resolves, no request for its disk is under way. Later requests get EIO. */
  remove(nodeId: number): Promise<void>;
}

/** The attributes of a file of the bus, for stat(2). */
export interface Attributes extends FileAttributes {
  nodeId: number;
  size: number;
  /** 512-byte units */
  blocks: number;
  links: number;
}
