/**
 * A disk in the server: opened by its driver on the descriptors that the keeper sends, and closed completely even if a
 * step of the close fails.
 */
import { fstatSync } from 'node:fs';
import { brokenDisk } from '../../drivers/broken.js';
import { closeAll, inTime } from '../../drivers/close-fd.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { Host, RawDisk } from '../../drivers/driver.js';
import { FusetapError, isCodeMissing } from '../../drivers/errors.js';
import { withFilters } from '../../drivers/filters/with-filters.js';
import { openGraph, type RemoteContext } from '../../drivers/graph/open-graph.js';
import { windowOf } from '../../drivers/segments/one-segment.js';
import { markWriter } from '../images/copy-lease.js';
import type { Ledger } from '../ledger/ledger.js';
import { type CreditSource, fillGuard, limitDisk } from '../ram/bounded-disk.js';
import type { AttachCommand, GraphRef, ImageRef, VbdFacts, WindowFacts } from './commands.js';
import type { KeptDisk } from './keeping.js';
import { logDriverErrors } from './log-driver-errors.js';
import type { ServedPartition } from './partitions.js';
import type { PassedFds } from './passed-fds.js';
import type { ServedRamImage } from './ram-images.js';
import { TakenFiles } from './taken-files.js';

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
  /** the memory that its clients fill, or null */
  readonly memory: OpenedMemory | null;
  /** all memories in its tree */
  readonly memories: readonly OpenedMemory[];
  /** identities of its images, as in bus.json; the first is that of the main one */
  readonly identities: readonly string[];
  /** the paths of its files, by the server's descriptors */
  readonly filePaths: ReadonlyMap<number, string>;
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
  hostFor(disk: KeptDisk): Host;
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

function openBroken({ name, driver, ledgerIndex, mode, disk: ref }: AttachCommand, size: number, broken: string) {
  const raw = brokenDisk(size);
  const disk = frontDisk(raw, { readOnly: mode === 'r' });
  const opened = { name, driver, disk, raw, ledgerIndex, broken, partitions: [], facts: null, holders: null };
  const bytes = { fds: [], filePaths: new Map(), memory: null, memories: [], bytesFd: null, isShared: false };
  return { ...opened, ...bytes, identities: identitiesOf(ref) } satisfies OpenedDisk;
}

function identitiesOf({ files, kept }: GraphRef): string[] {
  const claimed = kept === undefined ? [] : [kept.claim.identity];
  return [...new Set([...Object.values(files).flatMap(({ identity }) => identity ?? []), ...claimed])];
}

async function openWithDriver(
  { ledger, keeperPid, memoryWanted, hostFor }: OpeningContext,
  command: AttachCommand,
  passed: PassedFds,
): Promise<OpenedDisk> {
  const { nodeId, ledgerIndex, name, mode, driver, filters = [], size } = command;
  const readOnly = mode === 'r';
  const taken = await TakenFiles.take(command.disk, passed, mode);
  try {
    const memory = taken.memories[''] ?? null;
    if (memory !== null && !readOnly) markWriter(memory.memory.fd, keeperPid);
    const room = { ledger, ledgerIndex, ask: () => memoryWanted(nodeId) };
    const mayFill = memory === null || readOnly ? {} : { mayFill: fillGuardOf(memory.memory.fd, room) };
    const remote = (node: string): RemoteContext => remoteContext(command, taken, hostFor, node);
    const opened = limitDisk(await openGraph({ ...taken.opened(readOnly), ...mayFill, remote }), room);
    const raw = await withFilters(opened, filters, logDriverErrors({ vdev: name, driver }));
    if (size !== undefined && raw.size !== size) {
      await inTime('closing it', raw.close());
      throw new FusetapError('FAILED', `it had ${size} bytes at attach, and has ${raw.size} now`);
    }
    const disk = frontDisk(raw, { readOnly });
    const bytesFd = memory?.memory.fd ?? taken.fdOf((readOnly ? undefined : writtenFile(command)) ?? taken.refs.file);
    const { fds, filePaths } = taken;
    const memories = sharedMemories(command, taken);
    const shared = memory === null ? null : (memories.find(({ fd }) => fd === memory.memory.fd) ?? null);
    const held = { fds, filePaths, memory: shared, memories, identities: identitiesOf(command.disk), bytesFd };
    const isShared = memory === null && mode === 'w!';
    const state = { broken: null, partitions: [], facts: null, holders: null };
    return { name, driver, disk, raw, ledgerIndex, ...held, isShared, ...state };
  } catch (error) {
    void closeAll(taken.fds);
    throw error;
  }
}

/** @throws FusetapError UNSUPPORTED if the keeper cannot keep what outlives a server */
function remoteContext(
  { disk: { kept }, name: vdev, ledgerIndex, driver, mode }: AttachCommand,
  taken: TakenFiles,
  hostFor: OpeningContext['hostFor'],
  node: string,
): RemoteContext {
  if (kept === undefined) {
    throw new FusetapError(
      'UNSUPPORTED',
      `driver ${driver} needs a bus of this version: the keeper of this bus is older`,
      {
        hint: 'use another bus (--bus NAME), or stop this one first',
      },
    );
  }
  const host = hostFor({ keptId: kept.id, node, vdev, ledgerIndex });
  return { kept: taken.kept[node] ?? null, host, isShared: mode === 'w!' };
}

/** The first file that clients write; not a base, which only a commit writes. */
function writtenFile({ disk: { files, writes }, mode }: AttachCommand): ImageRef | undefined {
  const isBase = (path: string): boolean => writes !== undefined && `${path}/`.startsWith(`${writes}/`);
  return Object.entries(files).find(([path, ref]) => (ref.mode ?? mode) !== 'r' && !isBase(path))?.[1];
}

/** See OpenContext.mayFill. */
function fillGuardOf(memoryFd: number, room: CreditSource): (offset: number, length: number) => Promise<void> {
  return fillGuard(memoryFd, fstatSync(memoryFd).size, room);
}

function sharedMemories({ disk, mode }: AttachCommand, taken: TakenFiles): OpenedMemory[] {
  return Object.entries(disk.memories).flatMap(([path, { link }]) => {
    const held = taken.memories[path];
    if (link === null || held === undefined) return [];
    return [{ id: link.id, link, fd: held.memory.fd, mayWrite: path === '' && mode !== 'r' }];
  });
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

/** Where the bytes of a disk are that is one run of a file. */
export function windowFacts({ disk, filePaths }: OpenedDisk): {
  window: WindowFacts | null;
  windowFile: string | null;
} {
  const window = windowOf(disk);
  if (window === undefined) return { window: null, windowFile: null };
  const { fd, ...facts } = window;
  return { window: facts, windowFile: filePaths.get(fd) ?? null };
}
