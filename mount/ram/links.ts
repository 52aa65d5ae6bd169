/**
 * The links by which ram images are shared: each keeper that holds an image says so in a file of its own in ram/, and
 * where its memory can be opened.
 *
 *      ram/ID.PID   {"link":"/proc/PID/fd/N", "share", "sizeBytes", …}
 *
 * The kernel counts the references: a memory lives for as long as anybody has it open, so a link is only ever a way to
 * it, and may be stale. One is followed only where it leads to the very memory that it was made for: the process is
 * the one that wrote it (a pid may have been given anew), its descriptor is a memfd of our name, and its inode is the
 * recorded one. All others are removed.
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
import type { Json } from '../../drivers/driver.js';
import { F_SEAL_GROW, F_SEAL_SHRINK, getSeals, setNonBlocking } from '../../system/libc.js';
import { isOutOfResources, isRunning, readStartTime } from '../../system/proc.js';
import { type PreparedFile, prepareFile, replaceFile } from '../runtime/replace-file.js';
import { ramDirectory } from './lock.js';

/** One keeper's hold on a ram image. */
export interface RamLink {
  /** of the memory: the same in all links to it, and in its name */
  readonly id: string;
  readonly driver: string;
  /** what the image is shared under: a name that was given, else its identity */
  readonly share: string;
  /** the path it was copied from */
  readonly image: string;
  /** of the file it was copied from; see imageIdentity */
  readonly identity: string;
  readonly sizeBytes: number;
  /** what the driver's `prepare` returned */
  readonly state: Json;
  /** false while it is being copied */
  readonly filled: boolean;
  /** what it may take in any case: its data while it is copied, its whole size where it may be passed through */
  readonly reservedBytes: number;
  /** what it may grow by beyond what it holds */
  readonly grantedBytes: number;
  readonly bus: string;
  readonly pid: number;
  /** tells a process from a later one of the same pid */
  readonly startTime: string;
  /** /proc/PID/fd/N */
  readonly link: string;
  readonly dev: string;
  readonly ino: string;
}

/** The name of a memory, as memfd_create takes it and /proc shows it. */
export function memfdName(id: string): string {
  return `fusetap-ram-${id}`;
}

/** What a link says of the process that publishes it and of the descriptor where its memory is. */
export function linkTarget(fd: number): Pick<RamLink, 'pid' | 'startTime' | 'link' | 'dev' | 'ino'> {
  const { dev, ino } = fstatSync(fd, { bigint: true });
  const { pid } = process;
  const startTime = readStartTime(pid) ?? '';
  return { pid, startTime, link: `/proc/${pid}/fd/${fd}`, dev: String(dev), ino: String(ino) };
}

/** Makes a link known, in place of one of the same process to the same image. */
export function writeLink(runtimeDir: string, link: RamLink): void {
  replaceFile(pathOf(runtimeDir, link), textOf(link), temporaryOf(runtimeDir, link));
}

/** A link that lies ready to be made known in one step. */
export function prepareLink(runtimeDir: string, link: RamLink): PreparedFile {
  return prepareFile(pathOf(runtimeDir, link), textOf(link), temporaryOf(runtimeDir, link));
}

const textOf = (link: RamLink): string => `${JSON.stringify(link)}\n`;

/** No name of a link: who cleans the directory removes what a dead process left. */
const temporaryOf = (runtimeDir: string, { id, pid }: RamLink): string =>
  join(ramDirectory(runtimeDir), `.${id}.${pid}.${process.pid}`);

/** The link of a process to an image, by default of this one; null if somebody took it away, or it cannot be read now. */
export function linkOf(runtimeDir: string, id: string, pid: number = process.pid): RamLink | null {
  try {
    return readLink(runtimeDir, `${id}.${pid}`);
  } catch {
    return null;
  }
}

/** Takes a link away; it may be gone already. */
export function removeLink(runtimeDir: string, link: Pick<RamLink, 'id' | 'pid'>): void {
  rmSync(pathOf(runtimeDir, link), { force: true });
}

/** The links that lead to a memory. @throws if that cannot be known now, for want of a descriptor */
export function listLinks(runtimeDir: string): RamLink[] {
  return namesIn(runtimeDir).flatMap((name) => {
    const link = readLink(runtimeDir, name);
    return link !== null && isLive(link) ? [link] : [];
  });
}

/** The links that lead to a memory; all others are removed. Under the lock only. @throws as listLinks: that one stays */
export function cleanLinks(runtimeDir: string): RamLink[] {
  return namesIn(runtimeDir).flatMap((name) => {
    const link = readLink(runtimeDir, name);
    if (link !== null && isLive(link)) return [link];
    try {
      rmSync(join(ramDirectory(runtimeDir), name), { force: true });
    } catch {
      // a directory that can be written no more: it leads nowhere all the same
    }
    return [];
  });
}

/**
 * Opens the memory that a link leads to, for reading and writing.
 * @returns null if it does not lead there (any more)
 */
export function openLink(link: RamLink): number | null {
  if (!isLive(link)) return null;
  let fd: number;
  try {
    // should the descriptor have become something else by now, that must neither block nor be our terminal
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

/** The bytes that a memory holds, wherever they are. 0 where it is gone. */
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
    // gone meanwhile, or cut short: leads nowhere either way
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
