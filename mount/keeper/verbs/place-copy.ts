/**
 * Puts a copy of a vbd in place as a file, in one step or not at all (place-file.ts). The server fills it. To a FIFO that
 * somebody reads the bytes are written, and it stays as it is.
 */
import { constants, fstatSync } from 'node:fs';
import { type FileHandle, lstat, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { FusetapError, toFusetapError } from '../../../drivers/errors.js';
import { named } from '../../../drivers/quote.js';
import { deviceName, locate, readMounts } from '../../../system/proc.js';
import type { ClaimOptions } from '../../images/claim-image.js';
import { followOutside, type OwnBus } from '../../images/open-image.js';
import { type Placing, placeFile } from '../../images/place-file.js';
import { imageIdentity } from '../../ram/share-rules.js';

export interface SaveContext extends ClaimOptions {
  /** the target must not be on this bus */
  readonly ownBus: OwnBus;
  /** fills an open empty file, durably; or writes all bytes to a FIFO */
  copy(fd: number, kind: { isFifo: boolean }): Promise<void>;
  /** runs `place`, which replaces the file of identity `from` by the one of identity `to` */
  replace(from: string, to: string, place: () => void): Promise<void>;
}

const CANNOT = 'cannot save to';

/**
 * Saves to a path.
 * @returns the path that was written, without symbolic links
 * @throws FusetapError BUSY if the file exists and `force` is not set, or if it is in use; USAGE if it is no regular
 *   file; NO_SPACE; DENIED
 */
export async function saveTo(path: string, force: boolean, context: SaveContext): Promise<string> {
  const directory = await followOutside(dirname(path), context.ownBus);
  const there = join(directory, basename(path));
  // the file may be a mount point of its own
  await context.ownBus.answering?.askFirst(there, { path, at: locate(await readMounts('self'), there) });
  const fifo = await openFifo(there);
  if (fifo !== null) return await writeToFifo(fifo, path, context);
  const { copy, replace } = context;
  const placing: Placing = {
    ...context,
    ...{ force, what: 'a copy', cannot: CANNOT, operation: 'save' },
    fill: (fd) => copy(fd, { isFifo: false }),
    replace: (old, fd, put) => replace(imageIdentity(old), identityOf(fd), put),
  };
  return await placeFile(path, there, placing);
}

/** @returns null if there is no FIFO. A link is not followed: it may lead to a file system that hangs */
async function openFifo(path: string): Promise<FileHandle | null> {
  const stats = await lstat(path).catch(() => null);
  if (stats?.isFIFO() !== true) return null;
  try {
    return await open(path, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw cannotSave(path, error);
    throw new FusetapError('FAILED', `${CANNOT} ${named(path)}: nobody reads this FIFO`, { path });
  }
}

async function writeToFifo(fifo: FileHandle, path: string, context: SaveContext): Promise<string> {
  try {
    if (!(await fifo.stat()).isFIFO()) throw new FusetapError('FAILED', `${named(path)} was replaced meanwhile`);
    await context.copy(fifo.fd, { isFifo: true });
    return path;
  } catch (error) {
    throw cannotSave(path, error);
  } finally {
    await fifo.close();
  }
}

function identityOf(fd: number): string {
  const { dev, ino, birthtimeNs } = fstatSync(fd, { bigint: true });
  const born = String(birthtimeNs);
  return imageIdentity({ kind: 'file', rdev: null, dev: deviceName(dev), ino: String(ino), bornNs: born });
}

function cannotSave(path: string, error: unknown): FusetapError {
  const reason = error instanceof Error ? error.message : String(error);
  return toFusetapError(error, `${CANNOT} ${named(path)}: ${reason}`, { operation: 'save', path });
}
