/**
 * The rules of the files of a bus, the same on every transport: what they look like, who may open them, and how a
 * flush is done and told of.
 */
import { errnoOf } from '../../drivers/errors.js';
import { E } from '../../system/libc.js';
import type { Ledger } from '../ledger/ledger.js';
import { statBelow } from './below.js';
import type { Attributes, BusFile } from './transport.js';

const O_ACCMODE = 0o3;
const O_TRUNC = 0o1000;
const O_SYNC_OR_DSYNC = 0o4010000;
const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const S_IFLNK = 0o120000;

/** How files of the bus look where nobody changed it, and who owns the directory. */
export interface Ownership {
  readonly uid: number;
  readonly gid: number;
  readonly sinceMs: number;
}

/** The errno that refuses to open a file with those flags, or 0. */
export function refusalOfOpen(flags: number, readOnly: boolean): number {
  const writes = (flags & O_ACCMODE) !== 0 || (flags & O_TRUNC) !== 0;
  // root passes every permission bit, so the mode is enforced here
  if (writes && readOnly) return E.EROFS;
  // only a bus that an older fusetap mounted sends O_TRUNC with OPEN: its kernel takes the file for empty afterwards
  return flags & O_TRUNC ? E.EPERM : 0;
}

/**
 * The errno that refuses another size, or 0 (rule 7). Size 0 is ignored, not refused: it is how the kernel sends an open
 * with O_TRUNC, which a block device ignores, and how programs such as qemu-img empty a file before they fill it.
 */
export function refusalOfSize({ disk }: BusFile, size: number): number {
  if (size === disk.size) return 0;
  if (size !== 0) return E.EPERM;
  return disk.readOnly ? E.EROFS : 0;
}

/** What statfs(2) tells of a bus: the sizes of its vbds together, all of it in use. */
export interface BusSizes {
  readonly blockBytes: number;
  readonly blocks: number;
  readonly files: number;
  readonly nameBytes: number;
}

const BLOCK_BYTES = 4096;

/** Sums up all files of the bus, those of partitions included: they are files that a program can read. */
export function sizesOfBus(files: Iterable<BusFile>): BusSizes {
  const sizes = [...files].map(({ disk }) => Math.ceil(disk.size / BLOCK_BYTES));
  const blocks = sizes.reduce((sum, size) => sum + size, 0);
  return { blockBytes: BLOCK_BYTES, blocks, files: sizes.length, nameBytes: 255 };
}

/** Whether each write of a file opened so has to be durable. */
export function writesDurably(flags: number): boolean {
  return (flags & O_SYNC_OR_DSYNC) !== 0;
}

/**
 * What stat(2) tells of a file.
 * @param passedThrough the kernel writes to it by itself: only the file below knows when
 */
export function attributesOf(file: BusFile, ledger: Ledger, passedThrough: boolean): Attributes {
  const { nodeId, disk, ledgerIndex } = file;
  const { window, size } = disk;
  const below = window === undefined ? null : statBelow(window);
  if (passedThrough && below !== null) ledger.noteWriteSince(ledgerIndex, below.mtimeMs);
  const whole = Math.ceil(size / 512);
  // of a part of a file nobody knows how much of it is there
  const blocks = below === null ? whole : below.size === size ? below.blocks : Math.min(below.blocks, whole);
  const kept = ledger.attributes(ledgerIndex);
  return { ...kept, nodeId, size, blocks, mode: S_IFREG | kept.mode, links: 1 };
}

/** A directory of the bus: its own, or the one of links in it. */
export function directoryAttributes(nodeId: number, owner: Ownership, subdirectories = 0): Attributes {
  return { ...unchanging(owner), nodeId, size: 0, mode: S_IFDIR | 0o755, links: 2 + subdirectories };
}

/** A symbolic link of the bus. */
export function linkAttributes(nodeId: number, target: string, owner: Ownership): Attributes {
  return { ...unchanging(owner), nodeId, size: Buffer.byteLength(target), mode: S_IFLNK | 0o777, links: 1 };
}

/** What is as old as the bus, and nobody can change. */
function unchanging({ uid, gid, sinceMs }: Ownership): Omit<Attributes, 'nodeId' | 'size' | 'mode' | 'links'> {
  const sec = Math.floor(sinceMs / 1000);
  const times = { atimeSec: sec, atimeNsec: 0, mtimeSec: sec, mtimeNsec: 0, ctimeSec: sec, ctimeNsec: 0 };
  return { blocks: 0, ...times, uid, gid };
}

/** Flushes; a failure is put down in the ledger, from where each handle is told of it once (rule 5). */
export async function flushFile({ disk, ledgerIndex }: BusFile, ledger: Ledger): Promise<void> {
  await disk.flush().catch((error: unknown) => ledger.noteFlushError(ledgerIndex, errnoOf(error)));
}
