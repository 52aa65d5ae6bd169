/**
 * The links by which ram images are shared. Each keeper that has an image writes a link file in ram/, which says where
 * the memfd can be opened.
 *
 *      ram/ID.PID   {"link":"/proc/PID/fd/N", "share", "sizeBytes", …}
 *
 * The kernel counts the references: a memfd exists as long as any process has it open. So a link is only a path to it
 * and may be stale. A link is followed only if it still leads to its memfd: the process is the one that wrote the link
 * (a pid can be reused), its descriptor is a memfd of our name, and the inode is the recorded one. All other links are
 * removed.
 */
import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { defined } from '../../drivers/defined.js';
import type { Json } from '../../drivers/driver.js';
import { F_SEAL_GROW, F_SEAL_SHRINK, getSeals, setNonBlocking } from '../../system/libc.js';
import { isOutOfResources, isRunning, readStartTime } from '../../system/proc.js';
import { type PreparedFile, prepareFile, replaceFile } from '../runtime/replace-file.js';
import { ramDirectory } from './lock.js';

/** A keeper's reference to a ram image. */
export interface RamLink {
  /** of the ram image: the same in all its links and in the name of its memfd */
  readonly id: string;
  readonly driver: string;
  /** the name that vbds share it by: the name given at attach, else derived from the identity */
  readonly share: string;
  /** the path of the file that it was copied from */
  readonly image: string;
  /** the identity of that file; see imageIdentity */
  readonly identity: string;
  /** when it was copied, milliseconds since 1970; a process of an older version omits it */
  readonly copiedMs?: number;
  /** when the file last had the bytes of the ram image: at the copy, or at a save over the file; likewise */
  readonly sameAsFileMs?: number;
  readonly sizeBytes: number;
  /** the value that the driver's `prepare` returned */
  readonly state: Json;
  /** false while it is being copied */
  readonly filled: boolean;
  /** bytes that it may use in any case: its data while it is copied, its whole size if the kernel may do its I/O */
  readonly reservedBytes: number;
  /** bytes by which it may grow beyond its resident bytes */
  readonly grantedBytes: number;
  readonly bus: string;
  readonly pid: number;
  /** with `pid`, identifies the process: pids are reused */
  readonly startTime: string;
  /** /proc/PID/fd/N */
  readonly link: string;
  readonly dev: string;
  readonly ino: string;
}

/** The name of a ram image's memfd, for memfd_create and as /proc shows it. */
export function memfdName(id: string): string {
  return `fusetap-ram-${id}`;
}

/** The fields of a link that describe this process and the memfd `fd`. */
export function linkTarget(fd: number): Pick<RamLink, 'pid' | 'startTime' | 'link' | 'dev' | 'ino'> {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const { pid } = process;
  const startTime = readStartTime(pid) ?? '';
  return { pid, startTime, link: `/proc/${pid}/fd/${fd}`, dev: String(dev), ino: String(ino) };
}

/** A link with the fields that other processes change, taken from its file: a save gives it another file's identity. */
export function withMoved(link: RamLink, { identity, share, sameAsFileMs }: RamLink): RamLink {
  return { ...link, identity, share, ...defined({ sameAsFileMs }) };
}

/** Publishes a link. It replaces a link of the same process to the same image. */
export function writeLink(runtimeDir: string, link: RamLink): void {
  replaceFile(pathOf(runtimeDir, link), textOf(link), temporaryOf(runtimeDir, link));
}

/** Prepares a link so that it can be published in one step. */
export function prepareLink(runtimeDir: string, link: RamLink): PreparedFile {
  return prepareFile(pathOf(runtimeDir, link), textOf(link), temporaryOf(runtimeDir, link));
}

const textOf = (link: RamLink): string => `${JSON.stringify(link)}\n`;

/** Not a valid name of a link, so cleanLinks removes the file if its process dies. */
const temporaryOf = (runtimeDir: string, { id, pid }: RamLink): string =>
  join(ramDirectory(runtimeDir), `.${id}.${pid}.${process.pid}`);

/** The link of a process, by default this one, to an image; null if it was removed or cannot be read now. */
export function linkOf(runtimeDir: string, id: string, pid: number = process.pid): RamLink | null {
  try {
    return readLink(runtimeDir, `${id}.${pid}`);
  } catch {
    return null;
  }
}

/** Removes a link; it may be gone already. */
export function removeLink(runtimeDir: string, link: Pick<RamLink, 'id' | 'pid'>): void {
  rmSync(pathOf(runtimeDir, link), { force: true });
}

/** The valid links. @throws if one cannot be checked for lack of descriptors or memory */
export function listLinks(runtimeDir: string): RamLink[] {
  return namesIn(runtimeDir).flatMap((name) => {
    const link = readLink(runtimeDir, name);
    return link !== null && isLive(link) ? [link] : [];
  });
}

/** The valid links; removes all others. Call it under the lock. @throws as listLinks; the unchecked link stays */
export function cleanLinks(runtimeDir: string): RamLink[] {
  return namesIn(runtimeDir).flatMap((name) => {
    const link = readLink(runtimeDir, name);
    if (link !== null && isLive(link)) return [link];
    try {
      rmSync(join(ramDirectory(runtimeDir), name), { force: true });
    } catch {
      // the directory cannot be written: the file may stay, because a stale link is never followed
    }
    return [];
  });
}

/**
 * Opens the memfd of a link for reading and writing.
 * @returns null if the link is not valid (any more)
 */
export function openLink(link: RamLink): number | null {
  if (!isLive(link)) return null;
  let fd: number;
  try {
    // the descriptor may be another file by now: the open must not block or give us a controlling terminal
    fd = openSync(link.link, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    return null;
  }
  if (!isMemfdOf(fd, link)) {
    closeSync(fd);
    return null;
  }
  setNonBlocking(fd, false);
  return fd;
}

function isMemfdOf(fd: number, link: RamLink): boolean {
  const { dev, ino, size } = fstatSync(fd, { bigint: true });
  if (String(dev) !== link.dev || String(ino) !== link.ino || Number(size) !== link.sizeBytes) return false;
  const fixedSize = F_SEAL_GROW | F_SEAL_SHRINK;
  return (getSeals(fd) & fixedSize) === fixedSize;
}

/** The bytes allocated for a ram image, in memory or in swap; 0 if it is gone. */
export function residentBytes(link: RamLink): number {
  try {
    return Number(statSync(link.link, { bigint: true }).blocks) * 512;
  } catch {
    return 0;
  }
}

function isLive(link: RamLink): boolean {
  if (!isRunning(link.pid, link.startTime)) return false;
  try {
    if (readlinkSync(link.link) !== `/memfd:${memfdName(link.id)} (deleted)`) return false;
    const { dev, ino } = statSync(link.link, { bigint: true });
    return String(dev) === link.dev && String(ino) === link.ino;
  } catch {
    // the process or its descriptor is gone
    return false;
  }
}

function readLink(runtimeDir: string, name: string): RamLink | null {
  try {
    const link = JSON.parse(readFileSync(join(ramDirectory(runtimeDir), name), 'utf8')) as Partial<RamLink>;
    const isWhole = name === `${link.id}.${link.pid}` && link.link?.startsWith(`/proc/${link.pid}/fd/`) === true;
    return isWhole ? (link as RamLink) : null;
  } catch (error) {
    if (isOutOfResources(error)) throw error;
    // removed meanwhile, or incomplete: not valid in both cases
    return null;
  }
}

function namesIn(runtimeDir: string): string[] {
  try {
    return readdirSync(ramDirectory(runtimeDir));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

function pathOf(runtimeDir: string, { id, pid }: Pick<RamLink, 'id' | 'pid'>): string {
  return join(ramDirectory(runtimeDir), `${id}.${pid}`);
}
