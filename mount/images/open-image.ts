/**
 * Opens an image if it can be a disk. Everything else is refused with the reason and is not changed.
 *
 * The keeper opens images. It must never wait for its own bus, and its event loop must not wait for any other. So a
 * path is followed link by link, with a check of the mounts before each step, and every call that may block is
 * asynchronous.
 */
import { type BigIntStats, close, constants, fstat, open, readlinkSync } from 'node:fs';
import { access, readlink, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join } from 'node:path';
import { promisify } from 'node:util';
import { closeAll } from '../../drivers/close-fd.js';
import { codeOfErrno, FusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { blockDeviceSize, E, setNonBlocking } from '../../system/libc.js';
import {
  deviceName,
  fileSystemOf,
  isBelow,
  listLoops,
  locate,
  type Mount,
  readDeviceFamily,
  readMounts,
} from '../../system/proc.js';
import type { Answering } from './answering.js';
import { outlastExec } from './image-fds.js';
import type { Mode } from './mode.js';
import { type RecognizedEnds, refuseForeign } from './refuse-foreign.js';

const openAsync = promisify(open);
const fstatAsync = promisify(fstat) as (fd: number, options: { bigint: true }) => Promise<BigIntStats>;
const closeAsync = promisify(close);

/** as the kernel (MAXSYMLINKS) */
const LINK_LIMIT = 40;

/** An open image. Its owner must close `fd`. */
export interface OpenedImage {
  /** not close-on-exec, see image-fds.ts; read-only for mode `r`, else for reading and writing; never O_DIRECT */
  readonly fd: number;
  /** absolute, as given */
  readonly path: string;
  /** without symbolic links, at the time of the open */
  readonly realPath: string;
  /** at the open; changed by a repair, by a resize, and by writes of the vbd if it grows */
  sizeBytes: number;
  readonly kind: 'file' | 'block';
  /** `MAJ:MIN` of st_dev, in decimal */
  readonly dev: string;
  /** st_ino, in decimal */
  readonly ino: string;
  /** birth time of the inode, nanoseconds in decimal; 0 if the file system does not record it */
  readonly bornNs: string;
  /** modification time at the open, milliseconds since 1970; changed by a repair */
  modifiedMs: number;
  /** `MAJ:MIN` of the device itself if `kind` is `block`, else null */
  readonly rdev: string | null;
  /** the type of its file system, as `ext4`; empty if that is not known */
  readonly fileSystem: string;
}

/** Identifies an image whatever its path is: a file by its inode, a block device by its number. */
export function identityOf({ dev, ino, rdev }: Pick<OpenedImage, 'dev' | 'ino' | 'rdev'>): string {
  return rdev === null ? `${dev}:${ino}` : `block:${rdev}`;
}

/** The bus that the image is for. */
export interface OwnBus {
  /** `MAJ:MIN` of its mount, if it is mounted */
  ownDev?: string | undefined;
  /** absolute, without symbolic links */
  mountpoint: string;
  /** for calls on file systems that may hang; if omitted, they have no time limit */
  answering?: Answering;
}

export interface OpenOptions {
  /** allow an empty image; it stands for a ram image that is shared by name; default: false */
  readonly mayBeEmpty?: boolean;
  /** default: neither */
  readonly recognize?: RecognizedEnds;
  /** the image must be below this directory, which has no symbolic links in its path; default: anywhere */
  readonly below?: string;
}

/**
 * Opens an image. open(2) decides whether it may be written, so root may write to a file of mode 0444, as with losetup.
 * But a read-only block device is always refused for writing.
 * @param path absolute
 * @throws FusetapError NOT_FOUND no such image; USAGE not a file or block device, empty, on the bus itself, an
 *   impossible path, or recognized as another format; DENIED no permission, immutable, read-only file system; UNSUPPORTED too large; BUSY the file
 *   system does not answer
 */
export async function openImage(
  path: string,
  mode: Mode,
  bus: OwnBus,
  { mayBeEmpty = false, recognize = 'neither', below }: OpenOptions = {},
): Promise<OpenedImage> {
  refuseBadName(path);
  const place = await follow(path, bus);
  if (below !== undefined && !isBelow(textOf(place), below)) throw outside(path, below);
  const isBound = below !== undefined;
  const open = (): Promise<OpenedImage> => openAt(place, { path, mode, bus, mayBeEmpty, recognize, isBound });
  if (bus.answering === undefined) return await open();
  const at = locate(await readMounts('self'), textOf(place));
  return await bus.answering.withinLimit({ path, at }, open, ({ fd }) => closeAll([fd]));
}

interface OpenRequest {
  readonly path: string;
  readonly mode: Mode;
  readonly bus: OwnBus;
  readonly mayBeEmpty: boolean;
  readonly recognize: RecognizedEnds;
  /** the place was checked: the file must be there, and not where a link leads that somebody made meanwhile */
  readonly isBound: boolean;
}

async function openAt(place: ByteString, request: OpenRequest): Promise<OpenedImage> {
  const { path, mode, bus, mayBeEmpty } = request;
  const realPath = textOf(place);
  const kind = kindOf(await stat(bytesOf(place), { bigint: true }).catch(refuse(path)), path);
  const noFollow = request.isBound ? constants.O_NOFOLLOW : 0;
  const flags =
    (mode === 'r' ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK | constants.O_NOCTTY | noFollow;
  // libuv adds O_CLOEXEC. O_NONBLOCK: the file may have been replaced by a FIFO since stat, and its open would block
  const opened = await openAsync(bytesOf(place), flags).catch(refuseOpen(path, bytesOf(place), mode));
  try {
    const stats = await fstatAsync(opened, { bigint: true });
    if (kindOf(stats, path) !== kind)
      throw new FusetapError('FAILED', `${named(path)} was replaced while it was opened`);
    if (request.isBound && readlinkSync(`/proc/self/fd/${opened}`, 'buffer').toString('latin1') !== place) {
      throw new FusetapError('FAILED', `${named(path)} was replaced while it was opened`);
    }
    if (deviceName(stats.dev) === bus.ownDev) throw onOwnBus(path);
    const rdev = kind === 'block' ? deviceName(stats.rdev) : null;
    if (rdev !== null) await refuseDevice(rdev, { path, mode, bus });
    const sizeBytes = measure(opened, stats, { path, kind, rdev, mayBeEmpty });
    await refuseForeign(opened, sizeBytes, request);
    const [dev, ino, bornNs] = [deviceName(stats.dev), String(stats.ino), String(stats.birthtimeNs)];
    const modifiedMs = inMs(stats.mtimeNs);
    // the server is given this same open file description
    setNonBlocking(opened, false);
    const fd = await outlastExec(opened);
    const fileSystem = fileSystemOf(fd) ?? '';
    return { fd, path, realPath, sizeBytes, kind, dev, ino, bornNs, modifiedMs, rdev, fileSystem };
  } catch (error) {
    await closeAsync(opened);
    throw error;
  }
}

function outside(path: string, below: string): FusetapError {
  return new FusetapError('DENIED', `${named(path)} is not below ${named(below)}`, {
    path,
    operation: 'open',
    hint: 'if you trust the image that names it: --backing any',
  });
}

/** A time of stat(2) in milliseconds. */
export function inMs(ns: bigint): number {
  return Number(ns) / 1e6;
}

function refuseBadName(path: string): void {
  if (path === '' || /\p{Cc}/u.test(path)) {
    const hint = 'name it by a symbolic link without such characters';
    const why = path === '' ? 'the empty path' : `a control character in the path ${named(path)}`;
    throw new FusetapError('USAGE', `${why}: it cannot be an image`, { path, hint });
  }
  if (!isAbsolute(path)) {
    throw new FusetapError('USAGE', `${named(path)} is not absolute`, {
      path,
      hint: 'give the absolute path of the image',
    });
  }
}

/** Like realpath(3), but it checks each step before it is made and never steps onto the bus. */
export async function followOutside(path: string, bus: OwnBus): Promise<string> {
  return textOf(await follow(path, bus));
}

/**
 * A path with one character for each byte. A link may lead to a name that is not UTF-8, and as text this name would lose
 * its bytes.
 */
type ByteString = string;

const byteStringOf = (path: string): ByteString => Buffer.from(path).toString('latin1');
const bytesOf = (place: ByteString): Buffer => Buffer.from(place, 'latin1');
const textOf = (place: ByteString): string => bytesOf(place).toString();

async function follow(path: string, bus: OwnBus): Promise<ByteString> {
  const mounts = await readMounts('self');
  const names = byteStringOf(path).split('/').reverse();
  let at = '/';
  let asked: string | undefined;
  for (let links = 0; names.length > 0; ) {
    const name = names.pop() as string;
    if (name === '' || name === '.') continue;
    const next = name === '..' ? dirname(at) : join(at, name);
    if (leadsToBus(textOf(next), bus, mounts)) throw onOwnBus(path);
    const location = locate(mounts, textOf(next));
    if (location?.dev !== asked) {
      asked = location?.dev;
      await bus.answering?.askFirst(textOf(join(next, ...names.toReversed())), { path, at: location });
    }
    const link = name === '..' ? null : await readLink(next).catch(refuse(path));
    if (link === null) {
      at = next;
      continue;
    }
    refuseNamelessFile(path, link);
    if (++links > LINK_LIMIT) throw refusal(path, { errno: E.ELOOP });
    names.push(...link.split('/').reverse());
    if (isAbsolute(link)) at = '/';
  }
  return at;
}

/** The links in /proc/PID/fd to what has no path, such as `pipe:[920824]`, lead nowhere. @throws FusetapError USAGE */
function refuseNamelessFile(path: string, link: string): void {
  const [, kind] = /^(pipe|socket):\[\d+\]$/.exec(link) ?? [];
  if (kind !== undefined) throw notADisk(path, `a ${kind}`);
}

async function readLink(place: ByteString): Promise<ByteString | null> {
  try {
    return (await readlink(bytesOf(place), 'buffer')).toString('latin1');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EINVAL') return null;
    throw error;
  }
}

/** Whether the path is on the bus, also through a bind mount of it. */
function leadsToBus(path: string, bus: OwnBus, mounts: Mount[]): boolean {
  if (bus.ownDev === undefined) return isBelow(path, bus.mountpoint);
  return locate(mounts, path)?.dev === bus.ownDev;
}

function onOwnBus(path: string): FusetapError {
  return new FusetapError('USAGE', `${named(path)} is on the bus itself: the bus would wait for itself`, {
    path,
    hint: 'attach it to another bus (--bus NAME)',
  });
}

function kindOf(stats: BigIntStats, path: string): 'file' | 'block' {
  if (stats.isFile()) return 'file';
  if (stats.isBlockDevice()) return 'block';
  throw notADisk(path, typeName(stats));
}

function notADisk(path: string, what: string): FusetapError {
  const hint = 'an image is a regular file or a block device';
  return new FusetapError('USAGE', `${named(path)} is ${what}`, { path, hint });
}

function typeName(stats: BigIntStats): string {
  if (stats.isDirectory()) return 'a directory';
  if (stats.isFIFO()) return 'a FIFO';
  if (stats.isSocket()) return 'a socket';
  if (stats.isCharacterDevice()) return 'a character device';
  return 'neither a file nor a block device';
}

export async function refuseDevice(rdev: string, request: { path: string; mode: Mode; bus: OwnBus }): Promise<void> {
  const { path, mode, bus } = request;
  const [device] = readDeviceFamily(rdev);
  if (mode !== 'r' && device?.readOnly) {
    throw new FusetapError('DENIED', `${named(path)} is a read-only device`, { path, hint: HINT_READ_ONLY });
  }
  const loop = listLoops().find((candidate) => candidate.devs.includes(rdev));
  if (loop && leadsToBus(loop.backingFile, bus, await readMounts('self'))) throw onOwnBus(path);
}

function measure(
  fd: number,
  stats: BigIntStats,
  image: { path: string; kind: 'file' | 'block'; rdev: string | null; mayBeEmpty: boolean },
): number {
  const sizeBytes = image.kind === 'block' ? blockDeviceSize(fd) : Number(stats.size);
  const path = image.path;
  if (sizeBytes === 0 && image.rdev !== null) throw isUnbound(path, image.rdev);
  if (sizeBytes === 0 && !image.mayBeEmpty) {
    const hint = 'make it with `fusetap create IMAGE SIZE`, or give it a size with truncate(1)';
    throw new FusetapError('USAGE', `${named(path)}: the image is empty`, { path, hint });
  }
  if (sizeBytes > Number.MAX_SAFE_INTEGER) {
    const hint = `an image has at most ${Number.MAX_SAFE_INTEGER} bytes`;
    throw new FusetapError('UNSUPPORTED', `${named(path)} has ${stats.size} bytes`, { path, hint });
  }
  return sizeBytes;
}

/** A device without bytes: the kernel keeps nodes for loop and network devices that nobody has set up. */
function isUnbound(path: string, rdev: string): FusetapError {
  const name = readDeviceFamily(rdev)[0]?.name ?? '';
  const hint = name.startsWith('loop') ? `losetup ${path} IMAGE binds one; or attach the image itself` : undefined;
  return new FusetapError('USAGE', `no image is bound to ${named(path)}`, { path, hint });
}

/** the hint if an image can be read, but not written */
export const HINT_READ_ONLY = 'attach it with mode r';

/** A handler for a failed call on the way to the image. */
function refuse(path: string): (error: unknown) => never {
  return (error) => {
    throw refusal(path, error);
  };
}

/** A handler for a failed open: if only writing is not allowed, the error says so. */
export function refuseOpen(path: string, realPath: Buffer, mode: Mode): (error: unknown) => Promise<never> {
  return async (error) => {
    const code = (error as NodeJS.ErrnoException).code ?? '';
    if (mode === 'r' || !['EACCES', 'EPERM', 'EROFS', 'ETXTBSY'].includes(code)) throw refusal(path, error);
    const readable = await access(realPath, constants.R_OK).then(
      () => true,
      () => false,
    );
    if (!readable) throw refusal(path, error);
    throw new FusetapError('DENIED', `${named(path)} cannot be written: ${reasonOf(code)}`, {
      hint: HINT_READ_ONLY,
      errno: errnoOf(error),
      operation: 'open',
      path,
      cause: error,
    });
  };
}

function reasonOf(code: string): string {
  if (code === 'EROFS') return 'its file system is read-only';
  if (code === 'ETXTBSY') return 'it is a program that runs, or swap space';
  return code === 'EPERM' ? 'it is immutable or append-only (lsattr shows it)' : 'permission denied';
}

function errnoOf(error: unknown): number {
  return Math.abs((error as { errno?: number }).errno ?? E.EIO);
}

function refusal(path: string, error: unknown): FusetapError {
  const errno = errnoOf(error);
  const details = { errno, operation: 'open', path, cause: error };
  if (errno === E.ENOENT && path.includes('\u{fffd}')) {
    const hint = 'give it another name that is UTF-8, for example with a symbolic link (ln -s)';
    return new FusetapError('NOT_FOUND', `${named(path)}: no such image; its path is not UTF-8`, { ...details, hint });
  }
  if (errno === E.ENOENT || errno === E.ENOTDIR) {
    const hint = 'check the path, or make an image with `fusetap create IMAGE SIZE`';
    return new FusetapError('NOT_FOUND', `${named(path)}: no such image`, { ...details, hint });
  }
  if (errno === E.ENXIO || errno === E.ENODEV) {
    return new FusetapError('NOT_FOUND', `${named(path)}: no device is there`, details);
  }
  if (errno === E.EACCES || errno === E.EPERM) {
    const hint = `let this user (uid ${process.getuid?.()}) read it and search its directories`;
    return new FusetapError('DENIED', `${named(path)}: permission denied`, { ...details, hint });
  }
  if (errno === E.ELOOP || errno === E.ENAMETOOLONG) {
    const what = errno === E.ELOOP ? 'its symbolic links go in a circle' : 'the name is too long';
    return new FusetapError('USAGE', `${named(path)}: ${what}`, details);
  }
  return new FusetapError(codeOfErrno(errno), `${named(path)} cannot be opened: ${(error as Error).message}`, details);
}
