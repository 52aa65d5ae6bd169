/**
 * Puts a copy of a vbd in place as a file, in one step or not at all.
 *
 *      file without a name (draft-file.ts) ─► filled by the server, fsync ─► linked as FILE, or renamed over it ─►
 *      fsync of the directory
 *
 * A file that is replaced must not be in use (rule 8, mode w); the new file gets its owner and mode. To a FIFO that
 * somebody reads the bytes are written, and it stays as it is.
 */
import { constants, fstatSync } from 'node:fs';
import { type FileHandle, lstat, open } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { closeAll } from '../../../drivers/close-fd.js';
import { FusetapError, toFusetapError } from '../../../drivers/errors.js';
import { named } from '../../../drivers/quote.js';
import { deviceName, locate, readMounts } from '../../../system/proc.js';
import { type ClaimOptions, claimImage } from '../../images/claim-image.js';
import { followOutside, type OpenedImage, type OwnBus, openImage } from '../../images/open-image.js';
import { imageIdentity } from '../../ram/share-rules.js';
import { DraftFile } from './draft-file.js';

export interface SaveContext extends ClaimOptions {
  /** the target must not be on this bus */
  readonly ownBus: OwnBus;
  /** fills an open empty file, durably; or writes all bytes to a FIFO */
  copy(fd: number, kind: { isFifo: boolean }): Promise<void>;
  /** runs `place`, which replaces the file of identity `from` by the one of identity `to` */
  replace(from: string, to: string, place: () => void): Promise<void>;
}

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
  const old = await openOld(path, there, force, context);
  try {
    const target = old?.realPath ?? there;
    await fillAndPlace(target, old, context);
    return target;
  } finally {
    // closing it also releases its claim
    if (old !== null) await closeAll([old.fd]);
  }
}

/** @returns null if there is no FIFO. A link is not followed: it may lead to a file system that hangs */
async function openFifo(path: string): Promise<FileHandle | null> {
  const stats = await lstat(path).catch(() => null);
  if (stats?.isFIFO() !== true) return null;
  try {
    return await open(path, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw cannotSave(path, error);
    throw new FusetapError('FAILED', `cannot save to ${named(path)}: nobody reads this FIFO`, { path });
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

async function openOld(
  path: string,
  target: string,
  force: boolean,
  context: SaveContext,
): Promise<OpenedImage | null> {
  if ((await lstat(target).catch(() => null)) === null) return null;
  if (!force) throw alreadyThere(path);
  const old = await openImage(path, 'w', context.ownBus, { mayBeEmpty: true });
  try {
    if (old.kind !== 'file') {
      throw new FusetapError('USAGE', `${named(path)} is a block device: a copy takes the place of files only`, {
        hint: 'save to a file, then copy that with dd',
        path,
      });
    }
    await claimImage(old, 'w', context);
    return old;
  } catch (error) {
    await closeAll([old.fd]);
    throw error;
  }
}

async function fillAndPlace(target: string, old: OpenedImage | null, context: SaveContext): Promise<void> {
  const draft = await openDraft(target, context.ownBus);
  const { file } = draft;
  try {
    await context.copy(file.fd, { isFifo: false });
    if (old === null) placeNew(draft, target);
    else {
      await copyOwner(old, file);
      await context.replace(imageIdentity(old), identityOf(file.fd), () => draft.placeOver());
    }
    await syncDirectory(dirname(target));
  } catch (error) {
    throw cannotSave(target, error);
  } finally {
    await draft.close();
  }
}

async function openDraft(target: string, { answering }: OwnBus): Promise<DraftFile> {
  const open = (): Promise<DraftFile> =>
    DraftFile.open(target).catch((error: unknown) => {
      throw cannotSave(target, error);
    });
  if (answering === undefined) return await open();
  const at = locate(await readMounts('self'), target);
  return await answering.withinLimit({ path: target, at }, open, (late) => late.close());
}

async function copyOwner(old: OpenedImage, file: FileHandle): Promise<void> {
  const { uid, gid, mode } = fstatSync(old.fd);
  await file.chown(uid, gid);
  await file.chmod(mode & 0o7777);
  await file.sync();
}

function identityOf(fd: number): string {
  const { dev, ino, birthtimeNs } = fstatSync(fd, { bigint: true });
  const born = String(birthtimeNs);
  return imageIdentity({ kind: 'file', rdev: null, dev: deviceName(dev), ino: String(ino), bornNs: born });
}

/** Does not check first whether the file exists: somebody may make it between the check and the link. */
function placeNew(draft: DraftFile, target: string): void {
  try {
    draft.placeNew();
  } catch (error) {
    throw (error as NodeJS.ErrnoException).code === 'EEXIST' ? alreadyThere(target) : error;
  }
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

function alreadyThere(path: string): FusetapError {
  return new FusetapError('BUSY', `${named(path)} is there already`, {
    hint: 'choose another name, or replace it with --force',
    path,
  });
}

function cannotSave(path: string, error: unknown): FusetapError {
  const reason = error instanceof Error ? error.message : String(error);
  return toFusetapError(error, `cannot save to ${named(path)}: ${reason}`, { operation: 'save', path });
}
