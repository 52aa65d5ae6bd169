/**
 * Puts a new file in place, in one step or not at all.
 *
 *      file without a name (draft-file.ts) ─► filled, fsync ─► linked as FILE, or renamed over it ─► fsync of the directory
 *
 * A file that is replaced must not be in use (rule 8, mode w); the new file gets its owner and mode.
 */
import { constants, fstatSync } from 'node:fs';
import { type FileHandle, lstat, open } from 'node:fs/promises';
import { dirname } from 'node:path';
import { closeAll } from '../../drivers/close-fd.js';
import { errnoOf, FusetapError, toFusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { E } from '../../system/libc.js';
import { locate, readMounts } from '../../system/proc.js';
import { type ClaimOptions, claimImage } from './claim-image.js';
import { DraftFile } from './draft-file.js';
import { type OpenedImage, type OwnBus, openImage } from './open-image.js';
import { withoutModes } from './without-modes.js';

export interface Placing extends ClaimOptions {
  /** the file must not be on this bus */
  readonly ownBus: OwnBus;
  /** replace a file that is there; default: that is BUSY */
  readonly force: boolean;
  /** permission bits of a file that replaces none; default: 0600 */
  readonly mode?: number;
  /** what is put there, for messages: `a copy` */
  readonly what: string;
  /** the begin of messages, as `cannot save to` */
  readonly cannot: string;
  /** for errors, as `save` */
  readonly operation: string;
  /** Fills an open empty file, durably. @param old the file that it will replace; open, and must not be closed */
  fill(fd: number, old: OpenedImage | null): Promise<void>;
  /** Runs `put`, which replaces the old file by the one that is open as `fd`; default: only that */
  replace?(old: OpenedImage, fd: number, put: () => void): Promise<void>;
}

const UNWRITABLE = 'make it writable, or choose another name';

/**
 * Puts a file in place.
 * @param path as the user named it
 * @param there the same place; its directory has no symbolic links
 * @returns the path that was written, without symbolic links
 * @throws FusetapError BUSY if the file exists and `force` is not set, or if it is in use; USAGE if it is no regular
 *   file; NO_SPACE; DENIED
 */
export async function placeFile(path: string, there: string, placing: Placing): Promise<string> {
  const old = await withoutModes(UNWRITABLE, () => openOld(path, there, placing));
  try {
    const target = old?.realPath ?? there;
    await fillAndPlace(target, old, placing);
    return target;
  } finally {
    // closing it also releases its claim
    if (old !== null) await closeAll([old.fd]);
  }
}

async function openOld(path: string, there: string, placing: Placing): Promise<OpenedImage | null> {
  if ((await lstat(there).catch(() => null)) === null) return null;
  if (!placing.force) throw alreadyThere(path);
  const old = await openImage(path, 'w', placing.ownBus, { mayBeEmpty: true });
  try {
    if (old.kind !== 'file') {
      throw new FusetapError(
        'USAGE',
        `${named(path)} is a block device: ${placing.what} takes the place of files only`,
        {
          hint: 'choose a file, then copy that with dd',
          path,
        },
      );
    }
    await claimImage(old, 'w', placing);
    return old;
  } catch (error) {
    await closeAll([old.fd]);
    throw error;
  }
}

async function fillAndPlace(target: string, old: OpenedImage | null, placing: Placing): Promise<void> {
  const draft = await openDraft(target, placing);
  const { file } = draft;
  try {
    // before the work is done: only root may give a file away
    if (old !== null) await copyOwner(old, file, placing);
    await placing.fill(file.fd, old);
    if (old === null) {
      if (placing.mode !== undefined) await changeMode(file, placing.mode);
      placeNew(draft, target);
    } else {
      await changeMode(file, fstatSync(old.fd).mode & 0o7777);
      const put = (): void => draft.placeOver();
      if (placing.replace === undefined) put();
      else await placing.replace(old, file.fd, put);
    }
    await syncDirectory(dirname(target));
  } catch (error) {
    throw failure(placing, target, error);
  } finally {
    await draft.close();
  }
}

async function openDraft(target: string, placing: Placing): Promise<DraftFile> {
  const { answering } = placing.ownBus;
  const open = (): Promise<DraftFile> =>
    DraftFile.open(target).catch((error: unknown) => {
      throw failure(placing, target, error);
    });
  if (answering === undefined) return await open();
  const at = locate(await readMounts('self'), target);
  return await answering.withinLimit({ path: target, at }, open, (late) => late.close());
}

async function changeMode(file: FileHandle, mode: number): Promise<void> {
  await file.chmod(mode);
  await file.sync();
}

async function copyOwner(old: OpenedImage, file: FileHandle, { cannot, operation }: Placing): Promise<void> {
  const { uid, gid } = fstatSync(old.fd);
  try {
    await file.chown(uid, gid);
  } catch (error) {
    if (errnoOf(error) !== E.EPERM) throw error;
    const isOwner = uid === process.geteuid?.();
    const [whose, who] = isOwner ? [`group ${gid}`, 'a member of its group'] : [`user ${uid}`, 'its owner'];
    throw new FusetapError('DENIED', `${cannot} ${named(old.path)}: the file belongs to ${whose}`, {
      ...{ hint: `only ${who} or root can replace it: remove it first`, errno: E.EPERM, operation, path: old.path },
      cause: error,
    });
  }
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

function failure({ cannot, operation }: Placing, path: string, error: unknown): FusetapError {
  const reason = error instanceof Error ? error.message : String(error);
  return toFusetapError(error, `${cannot} ${named(path)}: ${reason}`, { operation, path });
}
