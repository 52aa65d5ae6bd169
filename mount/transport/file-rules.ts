/**
 * The rules for the files of a bus, the same for every transport: their attributes, who may open them, and how a flush
 * is done and its error reported.
 */
import { errnoOf } from '../../drivers/errors.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { E } from '../../system/libc.js';
import type { Ledger } from '../ledger/ledger.js';
import { statBelow } from './below.js';
import { NAME_KINDS } from './by-name.js';
import type { Attributes, BusFile } from './transport.js';

const O_ACCMODE = 0o3;
const O_TRUNC = 0o1000;
const O_SYNC_OR_DSYNC = 0o4010000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** The directories in a bus: by-slot, and those of names. */
export const SUBDIRECTORIES = 1 + NAME_KINDS.length;

/** The owner and the time of the bus's directories and links. */
export interface Ownership {
  readonly uid: number;
  readonly gid: number;
  readonly sinceMs: number;
}

/** The errno for an open with these flags, or 0 if it is allowed. */
export function refusalOfOpen(flags: number, readOnly: boolean): number {
  const writes = (flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0;
  // permission bits do not stop root, so the mode is enforced here
  if (writes && readOnly) return E.EROFS;
  // O_TRUNC comes with OPEN only on a bus that an older fusetap mounted: the kernel would take the file for empty then
  return flags & O_TRUNC ? E.EPERM : 0;
}

/**
 * The errno for setting another size, or 0 if it is allowed (rule 7). Size 0 is ignored, not refused: the kernel sends
 * it for an open with O_TRUNC, which a block device ignores too, and programs such as qemu-img empty a file before they
 * fill it.
 */
export function refusalOfSize({ disk }: BusFile, size: number): number {
  if (size === disk.size) return 0;
  if (size !== 0) return E.EPERM;
  return disk.readOnly ? E.EROFS : 0;
}

/** The result of statfs(2) for a bus: the sizes of its vbds together, all in use. */
export interface BusSizes {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly files: number;
  readonly nameBytes: number;
}

const BLOCK_BYTES = 4096;

/** Sums up all files of the bus, including partitions, because a program can read them too. */
export function sizesOfBus(files: Iterable<BusFile>): BusSizes {
  const sizes = [...files].map(({ disk }) => Math.ceil(disk.size / BLOCK_BYTES));
  const blocks = sizes.reduce((sum, size) => sum + size, 0);
  return { blockBytes: BLOCK_BYTES, blocks, files: sizes.length, nameBytes: 255 };
}

/** Whether a file opened with these flags needs durable writes (O_SYNC, O_DSYNC). */
export function writesDurably(flags: number): boolean {
  return (flags & O_SYNC_OR_DSYNC) !== 0;
}

/**
 * The result of stat(2) for a file.
 * @param isPassedThrough the kernel writes to the file below by itself: only that file has the time of the last write
 */
export function attributesOf(file: BusFile, ledger: Ledger, isPassedThrough: boolean): Attributes {
  const { nodeId, disk, ledgerIndex } = file;
  const { size } = disk;
  const window = windowOf(disk);
  const below = window === undefined ? null : statBelow(window);
  if (isPassedThrough && below !== null) ledger.noteWriteSince(ledgerIndex, below.mtimeMs);
  const whole = Math.ceil(size / 512);
  // for a part of a file the number of its allocated blocks is not known
  const blocks = below === null ? whole : below.size === size ? below.blocks : Math.min(below.blocks, whole);
  const kept = ledger.attributes(ledgerIndex);
  return { ...kept, nodeId, size, blocks, mode: S_IFREG | kept.mode, links: 1 };
}

/** The attributes of a directory of the bus: its root, or one of links. */
export function directoryAttributes(nodeId: number, owner: Ownership, subdirectories = 0): Attributes {
  return { ...unchanging(owner), nodeId, size: 0, mode: S_IFDIR | 0o755, links: 2 + subdirectories };
}

/** The attributes of a symbolic link of the bus. */
export function linkAttributes(nodeId: number, target: string, owner: Ownership): Attributes {
  return { ...unchanging(owner), nodeId, size: Buffer.byteLength(target), mode: S_IFLNK | 0o777, links: 1 };
}

/** The attributes that have the time of the bus and cannot be changed. */
function unchanging({ uid, gid, sinceMs }: Ownership): Omit<Attributes, 'nodeId' | 'size' | 'mode' | 'links'> {
  const sec = Math.floor(sinceMs / 1000);
  const times = { atimeSec: sec, atimeNsec: 0, mtimeSec: sec, mtimeNsec: 0, ctimeSec: sec, ctimeNsec: 0 };
  return { blocks: 0, ...times, uid, gid };
}

/** Flushes. A failure is recorded in the ledger, and each handle reports it once (rule 5). */
export async function flushFile({ disk, flushIndex }: BusFile, ledger: Ledger): Promise<void> {
  await disk.flush().catch((error: unknown) => ledger.noteFlushError(flushIndex, errnoOf(error)));
}

/**
 * Whether a failed write that had to be durable may have taken the error of an earlier write: the kernel reports a failed
 * write-back once per open file description, and all handles of a vbd share one. Then it counts as a failed flush, too. A write
 * beyond the end fails before it is tried.
 */
export function mayHaveTakenError(errno: number, offset: number, diskBytes: number): boolean {
  return offset < diskBytes && (errno === E.EIO || errno === E.ENOSPC || errno === E.EDQUOT);
}
