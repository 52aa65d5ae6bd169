/**
 * The server: opens disks with their drivers and gives them to the transport. It holds nothing that cannot be rebuilt
 * from what the keeper tells it.
 */
import { closeSync, constants, openSync } from 'node:fs';
import { brokenDisk } from '../../drivers/broken.js';
import { type Disk, frontDisk } from '../../drivers/disk.js';
import type { ImageFile, OpenContext, RawDisk } from '../../drivers/driver.js';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { makeFilter } from '../../drivers/filters/index.js';
import { openFiltered } from '../../drivers/open-filtered.js';
import { loadDriver } from '../../drivers/registry.js';
import { saveDisk } from '../../drivers/save-disk.js';
import { markWriter } from '../fuse/copy-lease.js';
import type { Ledger } from '../ledger.js';
import { readStats } from '../stats.js';
import type { Transport } from '../transport.js';
import { boundMemory, type MemoryRoom } from './bounded-memory.js';
import { markDevice } from './device-claim.js';
import { takeMarks } from './image-claim.js';
import type { VbdStats } from './interface.js';
import type {
  AttachCommand,
  CommandResult,
  Commands,
  ImageRef,
  PrepareCommand,
  SaveCommand,
  ShowCommand,
  SwapCommand,
  VbdFacts,
  WindowFacts,
} from './ipc.js';
import type { CreditedVbd } from './memory-credit.js';
import type { ServedMemory } from './server-memories.js';
import { openPartition, readTable, type ServedPartition } from './server-partitions.js';

interface Served {
  readonly name: string;
  readonly disk: Disk;
  /** the same without its front: what partitions are runs of */
  readonly raw: RawDisk;
  readonly ledgerIndex: number;
  /** those whose files are there */
  readonly partitions: ServedPartition[];
  /** the server's own descriptors of image and memory */
  readonly fds: readonly number[];
  readonly memory: OpenMemory | null;
  /** of its image, as the keeper writes it down */
  readonly identity: string | null;
  /** that of the fds which has the disk's bytes */
  readonly bytesFd: number | null;
  /** whether others may write them: mode w! of a file */
  readonly isShared: boolean;
  /** set when its file has appeared */
  facts: VbdFacts | null;
  /** its I/O is held for these (holds.ts); null: it is not held */
  holders: readonly string[] | null;
}

type OpenMemory = Omit<ServedMemory, 'isReserved'> & { readonly mayWrite: boolean };

/** What a disk and a partition of it have in common. */
type ServedFile = Pick<Served, 'name' | 'disk' | 'ledgerIndex'>;

/** What others have to know of the disks. */
export interface ServerEvents {
  /** a write needs more memory than it may take: what for is in the ledger */
  memoryWanted(nodeId: number): void;
  /** a disk is about to close its memory, and is none of `memories` any more */
  closing(memory: { readonly id: string }): void;
}

export class Server {
  readonly #keeperPid: number;
  readonly #transport: Transport;
  readonly #ledger: Ledger;
  readonly #events: ServerEvents;
  readonly #served = new Map<number, Served>();
  /** those that are being closed: a thread may still be waiting for memory for one */
  readonly #closing = new Map<number, Served>();

  constructor(keeperPid: number, transport: Transport, ledger: Ledger, events: ServerEvents) {
    this.#events = events;
    this.#keeperPid = keeperPid;
    this.#transport = transport;
    this.#ledger = ledger;
  }

  async describe({ driver, filters = [] }: Commands['describe']['command']): Promise<CommandResult<'describe'>> {
    for (const filter of filters) makeFilter(filter);
    const { image, sharesMemory } = await loadDriver(driver);
    return { image, sharesMemory: sharesMemory ?? false };
  }

  async prepare(
    command: PrepareCommand,
    signal: AbortSignal,
    progress: (doneBytes: number, totalBytes: number) => void,
  ): Promise<CommandResult<'prepare'>> {
    const driver = await loadDriver(command.driver);
    const fds: number[] = [];
    try {
      const image = command.image && this.#openImage(command.image, true, fds);
      const memory = { fd: this.#openKeepers(command.memoryFd, false, fds) };
      const state = await driver.prepare?.({ image, memory, options: command.options, signal, progress });
      return { state: state ?? null };
    } finally {
      for (const fd of fds) closeSync(fd);
    }
  }

  async measure(command: Commands['measure']['command'], signal: AbortSignal): Promise<CommandResult<'measure'>> {
    const driver = await loadDriver(command.driver);
    const fds: number[] = [];
    try {
      const image = command.image && this.#openImage(command.image, true, fds);
      const bytes = await driver.measure?.({ image, options: command.options, signal });
      return { bytes: bytes ?? image?.sizeBytes ?? 0 };
    } finally {
      for (const fd of fds) closeSync(fd);
    }
  }

  async save(
    { nodeId, targetFd }: SaveCommand,
    signal: AbortSignal,
    progress: (doneBytes: number, totalBytes: number) => void,
  ): Promise<null> {
    const { disk } = this.#find(nodeId);
    const fds: number[] = [];
    try {
      await saveDisk(disk, this.#openKeepers(targetFd, false, fds), { signal, progress });
      return null;
    } finally {
      for (const fd of fds) closeSync(fd);
    }
  }

  async attach(command: AttachCommand): Promise<CommandResult<'attach'>> {
    const served = await this.#open(command);
    this.#served.set(command.nodeId, served);
    return { size: served.disk.size, window: windowFacts(served.disk) };
  }

  /** @throws FusetapError USAGE where the size is another; all is as it was then */
  async swap({ attach: command, facts }: SwapCommand): Promise<null> {
    const { nodeId, name } = command;
    const old = this.#find(nodeId);
    const fresh = await this.#open(command);
    try {
      if (fresh.disk.size !== old.disk.size) throw otherSize(name, old.disk.size, fresh.disk.size);
      // what was acknowledged on the old image has to be there when it is looked at
      for (const { disk } of filesOf(old)) await disk.flush();
      for (const ref of old.partitions) fresh.partitions.push(openPartition(fresh.raw, fresh.disk.readOnly, ref));
    } catch (error) {
      await this.#letGo(fresh);
      throw error;
    }
    fresh.facts = facts;
    fresh.holders = old.holders;
    const { disk, bytesFd, partitions } = fresh;
    await this.#transport.swap(nodeId, { disk, bytesFd });
    for (const partition of partitions) await this.#transport.swap(partition.nodeId, { disk: partition.disk, bytesFd });
    this.#served.set(nodeId, fresh);
    await this.#letGo(old).catch((error: unknown) => console.error(`closing what ${name} had before:`, error));
    return null;
  }

  async #open(command: AttachCommand): Promise<Served> {
    const { nodeId, ledgerIndex, name, mode } = command;
    const readOnly = mode === 'r';
    const fds: number[] = [];
    try {
      const image = command.image && this.#openImage(command.image, readOnly, fds);
      // the marks stay for as long as either process holds the image
      if (image !== null && !takeMarks(image.fd, mode)) {
        throw new FusetapError('BUSY', `somebody has just locked the image for writing: ${image.path}`);
      }
      const marked = image?.kind === 'block' ? await markDevice(image.fd, image.path, mode) : null;
      if (marked !== null) fds.push(marked);
      const memory = command.memoryFd === null ? null : { fd: this.#openKeepers(command.memoryFd, readOnly, fds) };
      if (memory !== null && !readOnly) markWriter(memory.fd, this.#keeperPid);
      const context: OpenContext = { image, memory, state: command.state, readOnly, options: command.options };
      const ask = (): void => this.#events.memoryWanted(nodeId);
      const raw = await openRaw(command, context, { ledger: this.#ledger, ledgerIndex, ask });
      const disk = frontDisk(raw, { readOnly });
      const identity = command.image?.identity ?? null;
      const shared = memory === null ? null : sharedMemory(command, memory.fd);
      const bytes = { bytesFd: memory?.fd ?? image?.fd ?? null, isShared: memory === null && mode === 'w!' };
      const held = { fds, memory: shared, identity, ...bytes };
      return { name, disk, raw, ledgerIndex, partitions: [], ...held, facts: null, holders: null };
    } catch (error) {
      for (const fd of fds) closeSync(fd);
      throw error;
    }
  }

  /** What its partition table says; of one that cannot be read, that. */
  partitions(nodeId: number): Promise<CommandResult<'partitions'>> {
    return readTable(this.#find(nodeId).disk);
  }

  async show({
    nodeId,
    backingId,
    inherited,
    leaving,
    held,
    holders,
    facts,
    partitions = [],
  }: ShowCommand): Promise<null> {
    const served = this.#find(nodeId);
    const { name, raw, disk, ledgerIndex, bytesFd, isShared } = served;
    const bytes = { inherited, bytesFd, isShared };
    for (const ref of partitions) {
      const partition = openPartition(raw, disk.readOnly, ref);
      served.partitions.push(partition);
      await this.#transport.add({ ...ref, ...bytes, disk: partition.disk, backingId: null });
      if (ref.leaving) this.#transport.setLeaving(ref.nodeId, true);
    }
    served.facts = facts;
    await this.#transport.add({ nodeId, ledgerIndex, name, ...bytes, disk, backingId });
    if (leaving) this.#transport.setLeaving(nodeId, true);
    if (held) await this.hold(nodeId, holders);
    return null;
  }

  /** The partitions of a disk, in the order of its facts. */
  partitionsOf(nodeId: number): readonly ServedPartition[] {
    return this.#find(nodeId).partitions;
  }

  /** The vbds whose files are there, and for whom their I/O is held (null: it is not). */
  shown(): { nodeId: number; facts: VbdFacts; holders: readonly string[] | null }[] {
    return [...this.#served].flatMap(([nodeId, { facts, holders }]) => {
      return facts === null ? [] : [{ nodeId, facts, holders }];
    });
  }

  /** The memories of all disks that share theirs. */
  memories(): ServedMemory[] {
    return [...this.#served.values()].flatMap(({ memory, facts }) => {
      return memory === null ? [] : { ...memory, isReserved: memory.mayWrite && facts?.passthrough === true };
    });
  }

  /** Every file through which a memory may be written. */
  credited(): CreditedVbd[] {
    return [...this.#served, ...this.#closing].flatMap(([nodeId, served]) =>
      [{ ...served, nodeId }, ...served.partitions].map((file) => {
        return { nodeId: file.nodeId, ledgerIndex: file.ledgerIndex, memory: served.memory };
      }),
    );
  }

  /** What others find a disk's bytes by: its image, or its memory. */
  bytesOf(nodeId: number): { identity: string | null; memory: string | null } {
    const { identity, memory } = this.#find(nodeId);
    return { identity, memory: memory?.id ?? null };
  }

  /** What requests did, of each vbd and of each partition. */
  stats(bus: string, statsFd: number): VbdStats[] {
    return [...this.#served.values()].flatMap((served) => {
      if (served.facts === null) return [];
      return [served, ...served.partitions].map((file) => {
        const passthrough = file === served && served.facts?.passthrough === true;
        return { bus, vdev: file.name, passthrough, ...readStats(statsFd, file.ledgerIndex) };
      });
    });
  }

  async hold(nodeId: number, holders: readonly string[] = []): Promise<null> {
    this.#find(nodeId).holders = holders;
    await Promise.all(this.#nodesOf(nodeId).map((id) => this.#transport.hold(id)));
    return null;
  }

  async release(nodeId: number): Promise<null> {
    this.#find(nodeId).holders = null;
    for (const id of this.#nodesOf(nodeId)) this.#transport.release(id);
    return null;
  }

  async poison(nodeId: number): Promise<null> {
    this.#transport.poison(nodeId);
    return null;
  }

  async leave({ nodeId, leaving }: Commands['leave']['command']): Promise<CommandResult<'leave'>> {
    return { held: this.#transport.setLeaving(nodeId, leaving) };
  }

  async detach(nodeId: number): Promise<CommandResult<'detach'>> {
    const served = this.#find(nodeId);
    const nodes = this.#nodesOf(nodeId);
    this.#served.delete(nodeId);
    this.#closing.set(nodeId, served);
    await Promise.all(nodes.map((id) => this.#transport.remove(id)));
    this.#closing.delete(nodeId);
    const errors: (FusetapError | null)[] = [];
    for (const file of filesOf(served)) errors.push(await this.#flush(file));
    const flushError = errors.find((error) => error !== null);
    // the vbd is gone: what fails now must not be taken for that it is not
    await this.#letGo(served).catch((error: unknown) => console.error(`closing ${served.name}:`, error));
    return { flushError: flushError?.toJSON() ?? null };
  }

  async #letGo(served: Served): Promise<void> {
    try {
      // before it is closed: nobody shall follow a link to what the descriptor becomes next
      if (served.memory !== null) this.#events.closing(served.memory);
      for (const { disk } of filesOf(served)) await disk.close();
    } finally {
      for (const fd of served.fds) closeSync(fd);
    }
  }

  /** The disk's own and those of its partitions: what holds for one holds for all. */
  #nodesOf(nodeId: number): number[] {
    const partitions = this.#served.get(nodeId)?.partitions ?? [];
    return [nodeId, ...partitions.map((partition) => partition.nodeId)];
  }

  #find(nodeId: number): Served {
    const served = this.#served.get(nodeId);
    if (served === undefined) throw new FusetapError('NOT_FOUND', `no disk with node id ${nodeId}`);
    return served;
  }

  /** @returns why acknowledged writes may be lost: this flush failed, or an earlier one did */
  async #flush({ name, disk, ledgerIndex }: ServedFile): Promise<FusetapError | null> {
    try {
      await disk.flush();
    } catch (error) {
      return toFusetapError(error, `the last flush of ${name} failed`, { operation: 'flush' });
    }
    const { count, errno } = this.#ledger.flushErrors(ledgerIndex);
    if (count === 0) return null;
    return new FusetapError('FAILED', `a flush of ${name} failed while it was attached`, { errno, operation: 'flush' });
  }

  #openImage(ref: ImageRef, readOnly: boolean, fds: number[]): ImageFile {
    const fd = this.#openKeepers(ref.fd, readOnly, fds);
    return { fd, path: ref.path, sizeBytes: ref.sizeBytes, kind: ref.kind };
  }

  /** Opens what the keeper holds, never a path: names may have come to mean something else. */
  #openKeepers(fd: number, readOnly: boolean, fds: number[]): number {
    const access = readOnly ? constants.O_RDONLY : constants.O_RDWR;
    const own = openSync(`/proc/${this.#keeperPid}/fd/${fd}`, access);
    fds.push(own);
    return own;
  }
}

function sharedMemory({ memoryLink, mode }: AttachCommand, fd: number): OpenMemory | null {
  return memoryLink == null ? null : { id: memoryLink.id, link: memoryLink, fd, mayWrite: mode !== 'r' };
}

/** The disk; where an earlier server had it and this one cannot have the same again, one of that size that is broken. */
async function openRaw(command: AttachCommand, context: OpenContext, room: MemoryRoom): Promise<RawDisk> {
  const { driver, filters = [], size, name } = command;
  try {
    const raw = await openFiltered(boundMemory(await loadDriver(driver), room), context, filters);
    if (size === undefined || raw.size === size) return raw;
    await raw.close();
    throw new FusetapError('FAILED', `it had ${size} bytes at attach, and has ${raw.size} now`);
  } catch (error) {
    if (size === undefined) throw error;
    console.error(`${name} did not come back, its I/O is EIO from now on:`, error);
    return brokenDisk(size);
  }
}

/** Of a disk's files its own comes last: its partitions are runs of it, and are closed before it. */
function filesOf(served: Served): ServedFile[] {
  return [...served.partitions, served];
}

function otherSize(name: string, oldBytes: number, newBytes: number): FusetapError {
  return new FusetapError('USAGE', `${name} has ${oldBytes} bytes, the other image gives ${newBytes}`, {
    hint: 'a vbd keeps its size while it is attached: truncate the image to it, or detach and attach',
  });
}

function windowFacts({ window }: Disk): WindowFacts | null {
  if (window === undefined) return null;
  const { fd: _, ...facts } = window;
  return facts;
}
