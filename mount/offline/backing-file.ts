/**
 * The backing file of a new image: it must be there, and it tells the size of the new disk. Nobody may write to it; a vbd
 * that does must be paused.
 */
import { type BigIntStats, fstatSync, fsync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import { closeAll } from '../../drivers/close-fd.js';
import { errnoOf, FusetapError } from '../../drivers/errors.js';
import { examinerOf } from '../../drivers/examining/formats.js';
import { driverOfFormat, formatOfDriver, formatsWithDriver } from '../../drivers/formats/qemu-names.js';
import { named, quoted } from '../../drivers/quote.js';
import { errnoName } from '../../system/libc.js';
import { type Claim, claimImage } from '../images/claim-image.js';
import { placeOfNamed } from '../images/named-file.js';
import { followOutside, type OpenedImage, openImage } from '../images/open-image.js';
import { recognizeFile } from '../images/refuse-foreign.js';
import { withoutModes } from '../images/without-modes.js';
import { NO_BUS, openDiskHere } from '../open-disk.js';
import { describeUser } from './describe-user.js';
import { diskOfFile, requestFor, sayingPath } from './offline-image.js';
import { PausedUsers } from './paused-users.js';

const fsyncAsync = promisify(fsync);

export interface WantedBacking {
  /** relative to the directory of the new image, or absolute */
  readonly name: string;
  /** as QEMU or we call it; null: raw, if it does not look like another format */
  readonly format: string | null;
}

export interface OpenedBacking {
  readonly name: string;
  /** as QEMU calls it */
  readonly format: string;
  /** of its disk, in bytes; null if it cannot be told here */
  readonly size: number | null;
  /** see RawDisk.identity; null if its format has none */
  readonly identity: string | null;
  close(): Promise<unknown>;
}

/**
 * Opens a backing file and claims it for reading.
 * @param path of the new image, as the user named it
 * @param there the same; its directory has no symbolic links
 * @throws FusetapError NOT_FOUND; USAGE if its format must be stated, or if it is the new image itself; BUSY if somebody
 *   writes to it who is not a paused vbd
 */
export function openBacking(wanted: WantedBacking, path: string, there: string): Promise<OpenedBacking> {
  return withoutModes('make it writable', () => openAndClaim(wanted, path, there));
}

async function openAndClaim(wanted: WantedBacking, path: string, there: string): Promise<OpenedBacking> {
  const stated = wanted.format === null ? null : qemuName(wanted.format);
  // if a link is replaced, the file that it leads to gets the new content
  const realPath = await followOutside(there, NO_BUS).catch(() => there);
  const place = placeOfNamed(wanted.name, { path, realPath, kind: 'file' }, 'any');
  const file = await openImage(place.path, 'r', NO_BUS);
  const users = new PausedUsers();
  let held: Claim | undefined;
  const close = (): Promise<unknown> => {
    held?.release();
    return closeAll([file.fd]);
  };
  try {
    const old = await stat(there, { bigint: true }).catch(() => null);
    if (old !== null && isSameFile(old, fstatSync(file.fd, { bigint: true }))) {
      throw new FusetapError('USAGE', `${named(path)} would be its own backing file`, { path });
    }
    held = await claimStable(file, users);
    if (users.areThere) await flushFile(file);
    const format = stated ?? (await rawUnlessRecognized(file));
    return { name: wanted.name, format, ...(await factsOf(file, format)), close };
  } catch (error) {
    await close();
    throw error;
  }
}

/**
 * Claims a backing file. Vbds that write to it may be paused: their server has put what it acknowledged into the file, and
 * the next writes must go to the new image. A resume without a swap would change the base, whether it comes now or later.
 */
async function claimStable(file: OpenedImage, users: PausedUsers): Promise<Claim> {
  try {
    return await claimImage(file, 'r', { describePid: describeUser, mayShareWith: (holder) => users.include(holder) });
  } catch (error) {
    throw error instanceof FusetapError ? toBePaused(error) : error;
  }
}

/** The error with another hint, if all users of the file are vbds. */
function toBePaused(error: FusetapError): FusetapError {
  const { code, message, errno, path, holders = [] } = error;
  const [vbd] = holders;
  if (code !== 'BUSY' || vbd === undefined || holders.some(({ vdev }) => vdev === undefined)) return error;
  return new FusetapError(code, message, {
    hint: `pause it until it is swapped to the new image: fusetap pause --bus ${named(vbd.bus ?? '')} ${vbd.vdev}`,
    ...{ errno, path, holders, cause: error },
  });
}

/** Makes durable what the users of a backing file have written to it. */
async function flushFile({ fd, path }: OpenedImage): Promise<void> {
  try {
    await fsyncAsync(fd);
  } catch (error) {
    const errno = errnoOf(error);
    throw new FusetapError('FAILED', `${named(path)} cannot be flushed: ${errnoName(errno)}`, {
      ...{ errno, operation: 'fsync', path, cause: error },
      hint: 'see the log of the kernel for errors of its disk',
    });
  }
}

function isSameFile(one: BigIntStats, other: BigIntStats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/** @throws FusetapError UNSUPPORTED for a format that has no driver */
function qemuName(word: string): string {
  const format = driverOfFormat(word) === undefined ? formatOfDriver(word) : word;
  if (driverOfFormat(format) !== undefined) return format;
  throw new FusetapError('UNSUPPORTED', `backing files of the format ${quoted(word)} cannot be used`, {
    hint: `the formats are ${formatsWithDriver.join(', ')}`,
  });
}

/** A format that is not stated is never guessed: a guest can write the header of any format into its raw disk. */
async function rawUnlessRecognized(file: OpenedImage): Promise<string> {
  const recognized = await recognizeFile(file.fd, file.sizeBytes);
  if (recognized === null) return 'raw';
  const { is, format } = recognized;
  const isUsable = format !== undefined && driverOfFormat(format) !== undefined;
  throw new FusetapError('USAGE', `${named(file.path)} is ${is}, and its format was not stated`, {
    hint: `state it: --backing-format ${isUsable ? `${format}, or raw to use its bytes as they are` : 'raw'}`,
    path: file.path,
  });
}

async function factsOf(file: OpenedImage, format: string): Promise<Pick<OpenedBacking, 'size' | 'identity'>> {
  if (format === 'raw') return { size: file.sizeBytes, identity: null };
  const examiner = await examinerOf(format);
  if (examiner !== undefined) {
    const described = await sayingPath(file, () => examiner.describe(diskOfFile(file, { mode: 'r' })));
    return { size: described.size, identity: described.identity ?? null };
  }
  try {
    const disk = await openDiskHere({ ...requestFor([driverOfFormat(format) ?? format], file.path), mode: 'r' });
    await disk.close();
    return { size: disk.size, identity: null };
  } catch (error) {
    // its image names files that may not be opened
    if (error instanceof FusetapError && error.code === 'DENIED') return { size: null, identity: null };
    throw error;
  }
}
