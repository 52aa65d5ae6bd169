/**
 * A disk in the server: opened by its driver on the descriptors that the keeper sends, and closed completely even if a
 * step of the close fails.
 */
import { brokenDisk } from '../../drivers/broken.js';
import { closeAll, inTime } from '../../drivers/close-fd.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { ImageFile, OpenContext, RawDisk } from '../../drivers/driver.js';
import { FusetapError, isCodeMissing } from '../../drivers/errors.js';
import { openFiltered } from '../../drivers/open-filtered.js';
import { loadDriver } from '../../drivers/registry.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { keepOnExec } from '../../system/libc.js';
import { takeMarks } from '../images/claim-image.js';
import { markWriter } from '../images/copy-lease.js';
import { markDevice } from '../images/device-claim.js';
import type { Mode } from '../images/mode.js';
import type { Ledger } from '../ledger/ledger.js';
import { limitDriver } from '../ram/bounded-disk.js';
import type { AttachCommand, ImageRef, VbdFacts, WindowFacts } from './commands.js';
import { logDriverErrors } from './log-driver-errors.js';
import type { ServedPartition } from './partitions.js';
import { asReadOnly, type PassedFds } from './passed-fds.js';
import type { ServedRamImage } from './ram-images.js';

export interface OpenedDisk {
  readonly name: string;
  readonly driver: string;
  readonly disk: Disk;
  /** the disk without its checks (frontDisk); partitions are runs of it */
  readonly raw: RawDisk;
  readonly ledgerIndex: number;
  /** why the disk could not be opened again: every request fails with EIO; null if it could */
  readonly broken: string | null;
  /** the partitions whose files are shown */
  readonly partitions: ServedPartition[];
  /** the server's descriptors of image and memory */
  readonly fds: readonly number[];
  readonly memory: OpenedMemory | null;
  /** identity of its image, as in bus.json */
  readonly identity: string | null;
  /** the descriptor among `fds` that has the disk's bytes */
  readonly bytesFd: number | null;
  /** whether others may write the bytes too: mode w! of a file */
  readonly isShared: boolean;
  /** set when its file is shown */
  facts: VbdFacts | null;
  /** the owners of its pause (pauses.ts); null: it is not paused */
  holders: readonly string[] | null;
}

type OpenedMemory = Omit<ServedRamImage, 'isReserved'> & { readonly mayWrite: boolean };

/** What a disk and its partitions have in common. */
export type OpenedFile = Pick<OpenedDisk, 'name' | 'disk' | 'ledgerIndex'>;

/** What opening a disk needs from the server. */
export interface OpeningContext {
  readonly ledger: Ledger;
  readonly keeperPid: number;
  /** makes the keeper look at the memory that is asked for in the ledger */
  memoryWanted(nodeId: number): void;
}

/**
 * Opens the disk of a vbd. If an earlier server had it open, and it cannot be opened again with the same size, opens a
 * broken disk of that size instead, so that the other vbds are served.
 * @throws FusetapError if no earlier server had it, or if driver code is missing (such a server is of no use)
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
    console.error(`${name} cannot be opened again, its I/O fails with EIO from now on:`, error);
    return openBroken(command, size, error instanceof Error ? error.message : String(error));
  }
}

function openBroken(
  { name, driver, ledgerIndex, mode, image }: AttachCommand,
  size: number,
  broken: string,
): OpenedDisk {
  const raw = brokenDisk(size);
  const disk = frontDisk(raw, { readOnly: mode === 'r' });
  const bytes = { fds: [], memory: null, identity: image?.identity ?? null, bytesFd: null, isShared: false };
  return { name, driver, disk, raw, ledgerIndex, broken, partitions: [], ...bytes, facts: null, holders: null };
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
    // the marks stay as long as either process has the image open
    if (image !== null && !passed.areShared && !takeMarks(image.fd, mode)) {
      throw new FusetapError('BUSY', `another process has just locked the image for writing: ${image.path}`);
    }
    const marked = image?.kind === 'block' ? await markBlock(image, mode) : null;
    if (marked !== null) fds.push(marked);
    const memory = command.memoryFd === null ? null : openMemory(command.memoryFd, readOnly, passed, fds);
    if (memory !== null && !readOnly) markWriter(memory.fd, keeperPid);
    const context: OpenContext = { image, memory, state, readOnly, options };
    const bounded = limitDriver(await loadDriver(driver), { ledger, ledgerIndex, ask: () => memoryWanted(nodeId) });
    const raw = await openFiltered(bounded, context, filters, logDriverErrors({ vdev: name, driver }));
    if (size !== undefined && raw.size !== size) {
      await inTime('closing it', raw.close());
      throw new FusetapError('FAILED', `it had ${size} bytes at attach, and has ${raw.size} now`);
    }
    const disk = frontDisk(raw, { readOnly });
    const identity = command.image?.identity ?? null;
    const shared = memory === null ? null : sharedMemory(command, memory.fd);
    const bytes = { bytesFd: memory?.fd ?? image?.fd ?? null, isShared: memory === null && mode === 'w!' };
    const held = { fds, memory: shared, identity, ...bytes };
    return { name, driver, disk, raw, ledgerIndex, broken: null, partitions: [], ...held, facts: null, holders: null };
  } catch (error) {
    void closeAll(fds);
    throw error;
  }
}

function sharedMemory({ memoryLink, mode }: AttachCommand, fd: number): OpenedMemory | null {
  return memoryLink == null ? null : { id: memoryLink.id, link: memoryLink, fd, mayWrite: mode !== 'r' };
}

/** @param fds gets the descriptors that the caller has to close */
export function openImage(ref: ImageRef, readOnly: boolean, passed: PassedFds, fds: number[]): ImageFile {
  const fd = passed.take(ref.fd, readOnly);
  fds.push(fd);
  // see image-fds.ts: an orphan starts programs too
  keepOnExec(fd);
  return { fd, path: ref.path, sizeBytes: ref.sizeBytes, kind: ref.kind };
}

/** Claims the device for the server too: the keeper's claim ends if the keeper dies. */
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

/** The files of a disk. Its own comes last, because the partitions are runs of it and must be closed before it. */
export function filesOf(opened: OpenedDisk): OpenedFile[] {
  return [...opened.partitions, opened];
}

/**
 * Closes the disk and its partitions by their driver; the descriptors stay open.
 * @returns the first error: why acknowledged writes may be lost
 */
export async function closeDisks(opened: OpenedDisk): Promise<Error | null> {
  const errors: (Error | null)[] = [];
  for (const { disk, name } of filesOf(opened)) errors.push(await inTime(`closing ${name}`, disk.close()));
  return errors.find((error) => error !== null) ?? null;
}

/** Closes the disk, its partitions and its descriptors. @returns the first error */
export async function closeOpenedDisk(opened: OpenedDisk): Promise<Error | null> {
  const errors = [await closeDisks(opened), await closeAll(opened.fds)];
  return errors.find((error) => error !== null) ?? null;
}

export function windowFacts(disk: Disk): WindowFacts | null {
  const window = windowOf(disk);
  if (window === undefined) return null;
  const { fd: _, ...facts } = window;
  return facts;
}
