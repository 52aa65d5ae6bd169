/**
 * A disk as the server has it: opened by its driver from what the keeper passes on, and closed again, whatever one of the
 * steps says.
 */
import { brokenDisk } from '../../drivers/broken.js';
import { closeAll, inTime } from '../../drivers/close-fd.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { ImageFile, OpenContext, RawDisk } from '../../drivers/driver.js';
import { FusetapError, isCodeMissing } from '../../drivers/errors.js';
import { openFiltered } from '../../drivers/open-filtered.js';
import { loadDriver } from '../../drivers/registry.js';
import { keepOnExec } from '../../system/libc.js';
import { takeMarks } from '../images/claim-image.js';
import { markWriter } from '../images/copy-lease.js';
import { markDevice } from '../images/device-claim.js';
import type { Mode } from '../images/mode.js';
import type { Ledger } from '../ledger/ledger.js';
import { boundMemory } from '../ram/bounded-disk.js';
import type { AttachCommand, ImageRef, VbdFacts, WindowFacts } from './commands.js';
import type { ServedPartition } from './partitions.js';
import { asReadOnly, type PassedFds } from './passed-fds.js';
import type { ServedMemory } from './ram-images.js';

export interface OpenedDisk {
  readonly name: string;
  readonly disk: Disk;
  /** the same without its front: what partitions are runs of */
  readonly raw: RawDisk;
  readonly ledgerIndex: number;
  /** why it is not the disk that was there: every request is EIO; null where it is */
  readonly broken: string | null;
  /** those whose files are there */
  readonly partitions: ServedPartition[];
  /** the server's own descriptors of image and memory */
  readonly fds: readonly number[];
  readonly memory: OpenedMemory | null;
  /** of its image, as the keeper writes it down */
  readonly identity: string | null;
  /** that of the fds which has the disk's bytes */
  readonly bytesFd: number | null;
  /** whether others may write them: mode w! of a file */
  readonly isShared: boolean;
  /** set when its file has appeared */
  facts: VbdFacts | null;
  /** its I/O is held for these (pauses.ts); null: it is not held */
  holders: readonly string[] | null;
}

type OpenedMemory = Omit<ServedMemory, 'isReserved'> & { readonly mayWrite: boolean };

/** What a disk and a partition of it have in common. */
export type OpenedFile = Pick<OpenedDisk, 'name' | 'disk' | 'ledgerIndex'>;

/** What opening needs of the server. */
export interface OpeningContext {
  readonly ledger: Ledger;
  readonly keeperPid: number;
  /** has the keeper look at what is asked for in the ledger */
  memoryWanted(nodeId: number): void;
}

/**
 * Opens the disk of a vbd; where an earlier server had it and this one cannot have the same again, one of that size that
 * is broken: it must not keep the others away. A server that cannot load the code of drivers is of no use to any vbd.
 */
export async function openDisk(
  context: OpeningContext,
  command: AttachCommand,
  passed: PassedFds,
): Promise<OpenedDisk> {
  const { size, name, broken } = command;
  if (size !== undefined && broken !== undefined) return openBroken(command, size, broken);
  try {
    return await openWithDriver(context, command, passed);
  } catch (error) {
    if (size === undefined || isCodeMissing(error)) throw error;
    console.error(`${name} did not come back, its I/O is EIO from now on:`, error);
    return openBroken(command, size, error instanceof Error ? error.message : String(error));
  }
}

function openBroken({ name, ledgerIndex, mode, image }: AttachCommand, size: number, broken: string): OpenedDisk {
  const raw = brokenDisk(size);
  const disk = frontDisk(raw, { readOnly: mode === 'r' });
  const bytes = { fds: [], memory: null, identity: image?.identity ?? null, bytesFd: null, isShared: false };
  return { name, disk, raw, ledgerIndex, broken, partitions: [], ...bytes, facts: null, holders: null };
}

async function openWithDriver(
  { ledger, keeperPid, memoryWanted }: OpeningContext,
  command: AttachCommand,
  passed: PassedFds,
): Promise<OpenedDisk> {
  const { nodeId, ledgerIndex, name, mode, driver, filters = [], state, options, size } = command;
  const readOnly = mode === 'r';
  const fds: number[] = [];
  try {
    const image = command.image && openImage(command.image, readOnly, passed, fds);
    // the marks stay for as long as either process holds the image
    if (image !== null && !passed.areShared && !takeMarks(image.fd, mode)) {
      throw new FusetapError('BUSY', `somebody has just locked the image for writing: ${image.path}`);
    }
    const marked = image?.kind === 'block' ? await markBlock(image, mode) : null;
    if (marked !== null) fds.push(marked);
    const memory = command.memoryFd === null ? null : openMemory(command.memoryFd, readOnly, passed, fds);
    if (memory !== null && !readOnly) markWriter(memory.fd, keeperPid);
    const context: OpenContext = { image, memory, state, readOnly, options };
    const bounded = boundMemory(await loadDriver(driver), { ledger, ledgerIndex, ask: () => memoryWanted(nodeId) });
    const raw = await openFiltered(bounded, context, filters);
    if (size !== undefined && raw.size !== size) {
      await inTime('closing it', raw.close());
      throw new FusetapError('FAILED', `it had ${size} bytes at attach, and has ${raw.size} now`);
    }
    const disk = frontDisk(raw, { readOnly });
    const identity = command.image?.identity ?? null;
    const shared = memory === null ? null : sharedMemory(command, memory.fd);
    const bytes = { bytesFd: memory?.fd ?? image?.fd ?? null, isShared: memory === null && mode === 'w!' };
    const held = { fds, memory: shared, identity, ...bytes };
    return { name, disk, raw, ledgerIndex, broken: null, partitions: [], ...held, facts: null, holders: null };
  } catch (error) {
    void closeAll(fds);
    throw error;
  }
}

function sharedMemory({ memoryLink, mode }: AttachCommand, fd: number): OpenedMemory | null {
  return memoryLink == null ? null : { id: memoryLink.id, link: memoryLink, fd, mayWrite: mode !== 'r' };
}

/** @param fds is added what the caller has to close */
export function openImage(ref: ImageRef, readOnly: boolean, passed: PassedFds, fds: number[]): ImageFile {
  const fd = passed.take(ref.fd, readOnly);
  fds.push(fd);
  // see image-fds.ts: an orphan starts programs, too
  keepOnExec(fd);
  return { fd, path: ref.path, sizeBytes: ref.sizeBytes, kind: ref.kind };
}

/** The keeper has claimed the device; this is for the case that it dies. */
async function markBlock({ fd, path }: ImageFile, mode: Mode): Promise<number | null> {
  try {
    return await markDevice(fd, path, mode);
  } catch (error) {
    console.error(`marking ${path}:`, error);
    return null;
  }
}

function openMemory(keeperFd: number, readOnly: boolean, passed: PassedFds, fds: number[]): { fd: number } {
  const taken = passed.take(keeperFd, readOnly);
  const fd = readOnly && passed.areShared ? asReadOnly(taken) : taken;
  fds.push(fd);
  return { fd };
}

/** A disk's files; its own comes last, because its partitions are runs of it and are closed before it. */
export function filesOf(opened: OpenedDisk): OpenedFile[] {
  return [...opened.partitions, opened];
}

/**
 * Closes the disk and its partitions by their drivers; the descriptors stay open.
 * @returns the first error: acknowledged writes may be lost
 */
export async function closeDisks(opened: OpenedDisk): Promise<Error | null> {
  const errors: (Error | null)[] = [];
  for (const { disk, name } of filesOf(opened)) errors.push(await inTime(`closing ${name}`, disk.close()));
  return errors.find((error) => error !== null) ?? null;
}

/** Closes all of it. */
export async function closeOpenedDisk(opened: OpenedDisk): Promise<Error | null> {
  const errors = [await closeDisks(opened), await closeAll(opened.fds)];
  return errors.find((error) => error !== null) ?? null;
}

export function windowFacts({ window }: Disk): WindowFacts | null {
  if (window === undefined) return null;
  const { fd: _, ...facts } = window;
  return facts;
}
