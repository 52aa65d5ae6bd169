/**
 * The server opens disks with their drivers and gives them to the transport. It has no state that cannot be rebuilt
 * from the commands of the keeper.
 */
import { constants } from 'node:os';
import { closeAll } from '../../drivers/close-fd.js';
import { copyDisk, hasData } from '../../drivers/copying/copy-disk.js';
import { saveDisk, streamDisk } from '../../drivers/copying/save-disk.js';
import type { Disk } from '../../drivers/disk.js';
import type { Host } from '../../drivers/driver.js';
import { errnoOf, FusetapError, toFusetapError } from '../../drivers/errors.js';
import { makeFilter } from '../../drivers/filters/index.js';
import { findNeeds, measureNode, prepareNode, repairNode } from '../../drivers/graph/open-graph.js';
import { planGraph } from '../../drivers/graph/plan.js';
import { tellExtents } from '../../drivers/map/map-extents.js';
import { SECTOR_SIZES } from '../../drivers/partitions/index.js';
import type { VbdStats } from '../control/interface.js';
import type { CountedFile } from '../counting/bus-counting.js';
import { readStats } from '../ledger/counters.js';
import type { Ledger } from '../ledger/ledger.js';
import type { CreditedVbd } from '../ram/credit.js';
import type { Transport } from '../transport/transport.js';
import type { DriversDisk } from './blame.js';
import type {
  AttachCommand,
  ChangesCommand,
  CommandResult,
  Commands,
  CommitCommand,
  CopyToCommand,
  DescribeCommand,
  HasDataCommand,
  MapCommand,
  MeasureCommand,
  NeedsCommand,
  PartitionsCommand,
  PlanCommand,
  PrepareCommand,
  RepairCommand,
  RepartitionCommand,
  ResizeCommand,
  SaveCommand,
  ShowCommand,
  SwapCommand,
  VbdFacts,
} from './commands.js';
import { FifoWriter } from './fifo-writer.js';
import type { KeptDisk } from './keeping.js';
import { describe } from './older-keepers.js';
import { closeOpenedDisk, filesOf, type OpenedDisk, type OpenedFile, openDisk, windowFacts } from './opened-disk.js';
import { openPartition, readTable, type ServedPartition } from './partitions.js';
import type { PassedFds } from './passed-fds.js';
import type { ServedRamImage } from './ram-images.js';
import { whileOpen, whileOpenForWriting } from './taken-files.js';

const { errno: E } = constants;

/** requests to a disk that answers end within this time */
const GIVE_UP_MS = 5_000;

/** What other parts have to know about the disks. */
export interface ServerEvents {
  /** a write needs more memory than its credit: how much is in the ledger */
  memoryWanted(nodeId: number): void;
  /** a disk is about to close its ram image, which `memories` does not return any more */
  closing(memory: { readonly id: string }): void;
  /** see Keeping */
  hostFor(disk: KeptDisk): Host;
}

/** The means to cancel a long command, and to report its progress. */
export interface Stoppable {
  readonly signal: AbortSignal;
  readonly progress: (doneBytes: number, totalBytes: number) => void;
}

/** A disk that takes the place of another. */
interface Exchange {
  readonly nodeId: number;
  readonly old: OpenedDisk;
  readonly fresh: OpenedDisk;
  readonly isSameImage: boolean;
}

export class Server {
  readonly #transport: Transport;
  readonly #ledger: Ledger;
  readonly #keeperPid: number;
  readonly #events: ServerEvents;
  readonly #served = new Map<number, OpenedDisk>();
  /** disks that are being closed: a thread may still wait for memory for one */
  readonly #closing = new Map<number, OpenedDisk>();
  /** disks whose detach is under way: it may wait for a remote disk */
  readonly #detaching = new Map<number, OpenedDisk>();
  /** the last attach command of each node; the result of an earlier one is closed again */
  readonly #wanted = new Map<number, AttachCommand>();

  constructor(keeperPid: number, transport: Transport, ledger: Ledger, events: ServerEvents) {
    this.#keeperPid = keeperPid;
    this.#events = events;
    this.#transport = transport;
    this.#ledger = ledger;
  }

  async plan({ graph, filters }: PlanCommand): Promise<CommandResult<'plan'>> {
    for (const filter of filters) makeFilter(filter);
    return await planGraph(graph);
  }

  async describe(command: DescribeCommand): Promise<CommandResult<'describe'>> {
    for (const filter of command.filters ?? []) makeFilter(filter);
    return await describe(command);
  }

  async needs({ disk, absent }: NeedsCommand, passed: PassedFds): Promise<CommandResult<'needs'>> {
    return await whileOpen(disk, passed, async (opened) => ({ needs: await findNeeds({ ...opened, absent }) }));
  }

  async prepare(command: PrepareCommand, passed: PassedFds, means: Stoppable): Promise<CommandResult<'prepare'>> {
    const { disk, node, memoryFd, path } = command;
    const memory = { fd: passed.take(memoryFd, false) };
    try {
      const state = await whileOpen(disk, passed, (opened) => prepareNode(opened, node, memory, { path, ...means }));
      return { state };
    } finally {
      await closeAll([memory.fd]);
    }
  }

  async repair(command: RepairCommand, passed: PassedFds, means: Stoppable): Promise<CommandResult<'repair'>> {
    const { disk, node, path } = command;
    return await whileOpenForWriting(disk, passed, async (opened) => {
      return { notes: await repairNode(opened, node, { path, ...means }) };
    });
  }

  async measure(command: MeasureCommand, passed: PassedFds, signal: AbortSignal): Promise<CommandResult<'measure'>> {
    const { disk, node, path } = command;
    return await whileOpen(disk, passed, (opened) => measureNode(opened, node, { path, signal }));
  }

  async save({ nodeId, targetFd, isFifo }: SaveCommand, passed: PassedFds, means: Stoppable): Promise<null> {
    const { disk } = this.#find(nodeId);
    const fd = passed.take(targetFd, false);
    if (isFifo) return await saveToFifo(disk, fd, means);
    try {
      await saveDisk(disk, fd, means);
    } catch (error) {
      void closeAll([fd]);
      throw error;
    }
    const error = await closeAll([fd]);
    if (error !== null) throw toFusetapError(error, `the copy may be incomplete: ${error.message}`);
    return null;
  }

  async copyTo({ nodeId, attach }: CopyToCommand, passed: PassedFds, means: Stoppable): Promise<null> {
    const { disk } = this.#find(nodeId);
    const { ledgerIndex } = attach;
    const failures = (): number => this.#ledger.flushErrors(ledgerIndex).count;
    const before = failures();
    await this.#whileTarget(attach, passed, means.signal, (target) => copyDisk(disk, target, means));
    if (failures() === before) return null;
    // a disk on a network has lost what was acknowledged, and told it in the ledger
    throw new FusetapError('FAILED', 'the copy may be incomplete: the target has lost writes', { errno: E.EIO });
  }

  async hasData(
    { nodeId, attach }: HasDataCommand,
    passed: PassedFds,
    signal: AbortSignal,
  ): Promise<CommandResult<'hasData'>> {
    const { size } = this.#find(nodeId).disk;
    return { hasData: await this.#whileTarget(attach, passed, signal, (target) => hasData(target, size, signal)) };
  }

  /** Opens a disk that has no file, and closes it after the work. A disk that hangs is given up after an abort. */
  async #whileTarget<T>(
    attach: AttachCommand,
    passed: PassedFds,
    signal: AbortSignal,
    work: (disk: Disk) => Promise<T>,
  ): Promise<T> {
    const target = await this.#open(attach, passed);
    let timer: NodeJS.Timeout | undefined;
    const giveUp = (): void => {
      timer = setTimeout(() => target.disk.giveUp(), GIVE_UP_MS);
    };
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp);
    let result: T;
    try {
      result = await work(target.disk);
    } catch (failure) {
      await this.#close(target);
      throw failure;
    } finally {
      signal.removeEventListener('abort', giveUp);
      clearTimeout(timer);
    }
    const error = await this.#close(target);
    if (error !== null) throw toFusetapError(error, `the copy may be incomplete: ${error.message}`);
    return result;
  }

  /** Clients go on meanwhile. If the image cannot be flushed, writes that they have made may be lost. */
  async commit({ nodeId }: CommitCommand, means: Stoppable): Promise<null> {
    const served = this.#find(nodeId);
    try {
      await served.disk.commit(means);
    } catch (error) {
      if (error instanceof FusetapError && error.operation === 'flush') this.#noteFlushError(served, error);
      throw error;
    }
    return null;
  }

  /** The next fsync of each handle, and the detach, report it. */
  #noteFlushError(served: OpenedDisk, error: FusetapError): void {
    this.#ledger.noteFlushError(served.ledgerIndex, errnoOf(error));
  }

  /** The first changes in the range, and where to go on. */
  async changes({ nodeId, offset, length }: ChangesCommand): Promise<CommandResult<'changes'>> {
    const changes = await this.#find(nodeId).disk.changes(offset, length);
    const last = changes.at(-1);
    const next = last === undefined ? null : last.offset + last.length;
    return { changes, next: next === null || next >= offset + length ? null : next };
  }

  /** The first extents in the range, and where to go on. */
  async map({ nodeId, offset, length }: MapCommand): Promise<CommandResult<'map'>> {
    const { disk, filePaths } = this.#find(nodeId);
    const { extents, next } = await tellExtents(disk, offset, length);
    return {
      extents: extents.map(({ fd, ...extent }) => ({ ...extent, file: filePaths.get(fd ?? -1) ?? null })),
      next,
    };
  }

  async attach(command: AttachCommand, passed: PassedFds): Promise<CommandResult<'attach'>> {
    const { nodeId } = command;
    this.#wanted.set(nodeId, command);
    const opened = await this.#open(command, passed);
    if (this.#wanted.get(nodeId) !== command) {
      void closeOpenedDisk(opened);
      throw new FusetapError('FAILED', `${command.name} is not needed any more`);
    }
    this.#served.set(nodeId, opened);
    const { disk, broken } = opened;
    return { size: disk.size, ...windowFacts(opened), readOnly: disk.readOnly, broken };
  }

  #open(command: AttachCommand, passed: PassedFds): Promise<OpenedDisk> {
    const memoryWanted = (nodeId: number): void => this.#events.memoryWanted(nodeId);
    const hostFor = (disk: KeptDisk): Host => this.#events.hostFor(disk);
    return openDisk({ ledger: this.#ledger, keeperPid: this.#keeperPid, memoryWanted, hostFor }, command, passed);
  }

  /** @throws FusetapError USAGE if the sizes differ; nothing has changed then */
  async swap({ attach: command, facts }: SwapCommand, passed: PassedFds): Promise<null> {
    const { nodeId, name } = command;
    const old = this.#find(nodeId);
    // acknowledged writes must be in the old image when somebody looks at it: the new disk may be over it
    await this.#flushAll(old);
    const fresh = await this.#open(command, passed);
    try {
      if (fresh.disk.size !== old.disk.size) throw otherSize(name, old.disk.size, fresh.disk.size);
      if (fresh.disk.readOnly && !old.disk.readOnly) throw cannotWrite(name);
      for (const ref of old.partitions) fresh.partitions.push(openPartition(fresh.raw, fresh.disk.readOnly, ref));
    } catch (error) {
      await this.#close(fresh);
      throw error;
    }
    await this.#exchange({ nodeId, old, fresh, isSameImage: false }, facts);
    return null;
  }

  /** Serves a paused vbd from another disk, and closes the old one. */
  async #exchange({ nodeId, old, fresh, isSameImage }: Exchange, facts: VbdFacts): Promise<void> {
    fresh.facts = facts;
    fresh.holders = old.holders;
    const { disk, bytesFd, partitions } = fresh;
    await this.#transport.swap(nodeId, { disk, bytesFd, isSameImage });
    for (const partition of partitions) {
      await this.#transport.swap(partition.nodeId, { disk: partition.disk, bytesFd, isSameImage });
    }
    // an image that both have open is the old disk's until it is closed
    if (!isSameImage) this.#served.set(nodeId, fresh);
    const error = await this.#close(old);
    this.#served.set(nodeId, fresh);
    if (error === null) return;
    console.error(`closing the old disk of ${old.name}:`, error);
    if (!old.disk.readOnly) this.#ledger.noteFlushError(fresh.ledgerIndex, errnoOf(error));
  }

  /** Clients learn of a failure, too: the kernel tells it only once. */
  async #flushAll(served: OpenedDisk): Promise<void> {
    for (const { disk } of filesOf(served)) {
      await disk.flush().catch((error: unknown) => {
        this.#ledger.noteFlushError(served.ledgerIndex, errnoOf(error));
        throw error;
      });
    }
  }

  async sizeOf({ attach }: Commands['sizeOf']['command'], passed: PassedFds): Promise<CommandResult<'sizeOf'>> {
    const opened = await this.#open(attach, passed);
    const error = await closeOpenedDisk(opened);
    if (error !== null) console.error(`closing ${attach.name}:`, error);
    return { size: opened.disk.size };
  }

  /**
   * Opens the disk of a vbd again, with the size and the files of the command. Requests wait meanwhile. What the kernel does by itself
   * (passthrough) does not wait: a disk that grows changes nothing for it.
   */
  async resize({ attach: command, facts }: ResizeCommand, passed: PassedFds): Promise<null> {
    const { nodeId } = command;
    const old = this.#find(nodeId);
    const nodes = this.#nodesOf(nodeId);
    await Promise.all(nodes.map((id) => this.#transport.pause(id)));
    try {
      // a driver may keep writes to itself: the new disk must find them in the image
      await this.#flushAll(old);
      const fresh = await this.#open(command, passed);
      try {
        if (fresh.broken !== null) throw new FusetapError('FAILED', `${old.name} cannot be opened: ${fresh.broken}`);
        const { size } = fresh.disk;
        if (command.size === undefined && size !== old.disk.size) throw otherSize(old.name, old.disk.size, size);
        for (const ref of old.partitions) fresh.partitions.push(openPartition(fresh.raw, fresh.disk.readOnly, ref));
      } catch (error) {
        await this.#close(fresh);
        throw error;
      }
      await this.#exchange({ nodeId, old, fresh, isSameImage: true }, facts);
    } finally {
      // a vbd that somebody has paused stays paused
      if (this.#served.get(nodeId)?.holders === null) for (const id of nodes) this.#transport.resume(id);
    }
    return null;
  }

  /** Gives a disk other partitions: opens the new ones before the others are removed, so that it fails or is done. */
  async repartition({ nodeId, partitions, facts }: RepartitionCommand): Promise<null> {
    const served = this.#find(nodeId);
    const { raw, disk, bytesFd, isShared, ledgerIndex: flushIndex } = served;
    const known = new Map(served.partitions.map((partition) => [partition.nodeId, partition]));
    const fresh: ServedPartition[] = [];
    try {
      for (const ref of partitions) if (!known.has(ref.nodeId)) fresh.push(openPartition(raw, disk.readOnly, ref));
    } catch (error) {
      for (const partition of fresh) await partition.disk.close();
      throw error;
    }
    const wanted = new Set(partitions.map((partition) => partition.nodeId));
    for (const partition of served.partitions) if (!wanted.has(partition.nodeId)) await this.#drop(served, partition);
    for (const partition of fresh) known.set(partition.nodeId, partition);
    const all = partitions.flatMap((partition) => known.get(partition.nodeId) ?? []);
    served.partitions.splice(0, served.partitions.length, ...all);
    for (const partition of fresh) {
      const part = { whole: nodeId, offset: partition.offset };
      await this.#transport.add({
        ...partition,
        part,
        flushIndex,
        inherited: false,
        bytesFd,
        isShared,
        backingId: null,
      });
      if (served.holders !== null) await this.#transport.pause(partition.nodeId);
    }
    served.facts = facts;
    return null;
  }

  /** Removes the file of a partition. If its flush fails, the next fsync and the detach of its disk report that. */
  async #drop(served: OpenedDisk, partition: ServedPartition): Promise<void> {
    await this.#transport.remove(partition.nodeId);
    const error = await this.#flush(partition);
    if (error !== null) this.#ledger.noteFlushError(served.ledgerIndex, errnoOf(error));
    await partition.disk.close().catch((reason: unknown) => console.error(`closing ${partition.name}:`, reason));
  }

  /** The partition table, or why it cannot be read. */
  partitions(command: PartitionsCommand): Promise<CommandResult<'partitions'>> {
    return readTable(this.#find(command.nodeId).disk, command);
  }

  async show({
    nodeId,
    backingId,
    mapId = null,
    inherited,
    leaving,
    held,
    holders,
    facts,
    partitions = [],
  }: ShowCommand): Promise<null> {
    const served = this.#find(nodeId);
    const { name, raw, disk, ledgerIndex, bytesFd, isShared } = served;
    const bytes = { inherited, bytesFd, isShared, flushIndex: ledgerIndex };
    for (const ref of partitions) {
      const partition = openPartition(raw, disk.readOnly, ref);
      served.partitions.push(partition);
      const part = { whole: nodeId, offset: ref.offset };
      await this.#transport.add({ ...ref, ...bytes, part, disk: partition.disk, backingId: null });
      if (ref.leaving) this.#transport.setLeaving(ref.nodeId, true);
    }
    served.facts = facts;
    const sectorBytes = SECTOR_SIZES.find((size) => size === facts.sectorSize) ?? null;
    await this.#transport.add({ nodeId, ledgerIndex, name, ...bytes, disk, backingId, mapId, sectorBytes });
    if (leaving) this.#transport.setLeaving(nodeId, true);
    if (held) await this.pause(nodeId, holders);
    return null;
  }

  /** What the disks and partitions hold, and their names. */
  async names(): Promise<CommandResult<'names'>> {
    return { files: await this.#transport.names() };
  }

  /** How long the disks have not answered the reads for names. */
  async nameReads(): Promise<CommandResult<'nameReads'>> {
    return { oldestMs: this.#transport.oldestNameReadMs() };
  }

  /** The partitions of a disk, in the order of its facts. */
  partitionsOf(nodeId: number): readonly ServedPartition[] {
    return this.#find(nodeId).partitions;
  }

  /** The vbds whose files are shown; `holders`: the owners of the pause, null if not paused. */
  shown(): { nodeId: number; facts: VbdFacts; broken: string | null; holders: readonly string[] | null }[] {
    return [...this.#served].flatMap(([nodeId, { facts, broken, holders }]) => {
      return facts === null ? [] : [{ nodeId, facts, broken, holders }];
    });
  }

  /** The ram images of all disks that others may share. */
  memories(): ServedRamImage[] {
    return [...this.#served.values()].flatMap(({ memory, memories, facts }) => {
      const isReserved = memory?.mayWrite === true && facts?.passthrough === true;
      return memories.map((each) => ({ ...each, isReserved: each === memory && isReserved }));
    });
  }

  /** The disks that are open, and those that are being opened. */
  disks(): DriversDisk[] {
    const opening = [...this.#wanted].filter(([nodeId]) => !this.#served.has(nodeId));
    return [...this.#served.values(), ...opening.map(([, command]) => command)];
  }

  /** Every file through which a ram image may be written. */
  credited(): CreditedVbd[] {
    return [...this.#served, ...this.#closing].flatMap(([nodeId, served]) =>
      [{ ...served, nodeId }, ...served.partitions].map((file) => {
        return { nodeId: file.nodeId, ledgerIndex: file.ledgerIndex, memory: served.memory };
      }),
    );
  }

  /** The identities by which others find a disk's bytes: of its image, or of its ram image. */
  bytesOf(nodeId: number): { identities: readonly string[]; memory: string | null; memoriesBelow: string[] } {
    const { identities, memory, memories } = this.#find(nodeId);
    const below = memories.filter((each) => each !== memory).map(({ id }) => id);
    return { identities, memory: memory?.id ?? null, memoriesBelow: below };
  }

  /** The counters of requests, of each vbd and each partition. */
  stats(bus: string, statsFd: number): VbdStats[] {
    return [...this.#served.values()].flatMap((served) => {
      if (served.facts === null) return [];
      return [served, ...served.partitions].map((file) => {
        const passthrough = file === served && served.facts?.passthrough === true;
        return { bus, vdev: file.name, passthrough, ...readStats(statsFd, file.ledgerIndex) };
      });
    });
  }

  /** The files of vbds and partitions, as they are counted. */
  counted(): Omit<CountedFile, 'state' | 'imageState'>[] {
    return [...this.#served].flatMap(([nodeId, { facts, ledgerIndex, broken, partitions }]) => {
      if (facts === null) return [];
      const { vdev, driver, image, mode, size, passthrough } = facts;
      const known = { driver, image, broken };
      const whole = { vdev, nodeId, ledgerIndex, disk: null, mode, size, passthrough, ...known };
      const parts = partitions.map((file, i) => {
        const info = facts.partitions?.[i];
        const own = { vdev: file.name, nodeId: file.nodeId, ledgerIndex: file.ledgerIndex, passthrough: false };
        return { ...own, disk: vdev, mode: info?.mode ?? mode, size: info?.size ?? 0, ...known };
      });
      return [whole, ...parts];
    });
  }

  async pause(nodeId: number, holders: readonly string[] = []): Promise<null> {
    this.#find(nodeId).holders = holders;
    await Promise.all(this.#nodesOf(nodeId).map((id) => this.#transport.pause(id)));
    return null;
  }

  async resume(nodeId: number): Promise<null> {
    this.#find(nodeId).holders = null;
    for (const id of this.#nodesOf(nodeId)) this.#transport.resume(id);
    return null;
  }

  async makeKernelForget(nodeId: number): Promise<null> {
    this.#transport.makeKernelForget(nodeId);
    return null;
  }

  async leave({ nodeId, leaving }: Commands['leave']['command']): Promise<CommandResult<'leave'>> {
    return { held: this.#transport.setLeaving(nodeId, leaving) };
  }

  /** Makes requests that wait for a remote disk fail. */
  async giveUp(nodeId: number): Promise<null> {
    const { raw } = this.#detaching.get(nodeId) ?? this.#find(nodeId);
    raw.giveUp?.();
    return null;
  }

  /** @param isUnused no request has come: there is nothing to flush, and an earlier server may still write */
  async detach(nodeId: number, isUnused = false): Promise<CommandResult<'detach'>> {
    // if it is still being opened, `attach` closes it when it is open
    this.#wanted.delete(nodeId);
    const served = this.#find(nodeId);
    this.#detaching.set(nodeId, served);
    try {
      const errors = await this.#detach(nodeId, served, isUnused);
      return { flushError: errors.find((error) => error !== null)?.toJSON() ?? null };
    } finally {
      this.#detaching.delete(nodeId);
    }
  }

  async #detach(nodeId: number, served: OpenedDisk, isUnused: boolean): Promise<(FusetapError | null)[]> {
    const nodes = this.#nodesOf(nodeId);
    this.#served.delete(nodeId);
    this.#closing.set(nodeId, served);
    await Promise.all(nodes.map((id) => this.#transport.remove(id)));
    this.#closing.delete(nodeId);
    const errors: (FusetapError | null)[] = [];
    if (!isUnused) for (const file of filesOf(served)) errors.push(await this.#flush(file));
    errors.push(notClosed(served, await this.#close(served)));
    return errors;
  }

  /** @returns the first error: why acknowledged writes may be lost */
  async #close(served: OpenedDisk): Promise<Error | null> {
    try {
      // first remove the link: nobody may follow it to the file that gets this descriptor number next
      for (const memory of served.memories) this.#events.closing(memory);
    } catch (error) {
      console.error(`the link of ${served.name}:`, error);
    }
    return await closeOpenedDisk(served);
  }

  /** The node ids of the disk and its partitions, which are paused, resumed and removed together. */
  #nodesOf(nodeId: number): number[] {
    const partitions = this.#served.get(nodeId)?.partitions ?? [];
    return [nodeId, ...partitions.map((partition) => partition.nodeId)];
  }

  #find(nodeId: number): OpenedDisk {
    const served = this.#served.get(nodeId);
    if (served === undefined) throw new FusetapError('NOT_FOUND', `no disk with node id ${nodeId}`);
    return served;
  }

  /** @returns why acknowledged writes may be lost: this flush failed, or an earlier one; else null */
  async #flush({ name, disk, ledgerIndex }: OpenedFile): Promise<FusetapError | null> {
    try {
      await disk.flush();
    } catch (error) {
      return toFusetapError(error, `the last flush of ${name} failed`, { operation: 'flush' });
    }
    const { count, errno } = this.#ledger.flushErrors(ledgerIndex);
    if (count === 0) return null;
    return new FusetapError('FAILED', `a flush of ${name} failed while it was attached`, { errno, operation: 'flush' });
  }
}

/** A failed close counts as a failed flush, unless the disk is read-only. */
function notClosed({ name, disk }: OpenedDisk, error: Error | null): FusetapError | null {
  if (error === null) return null;
  const told = toFusetapError(error, `closing the image of ${name} failed: ${error.message}`, { operation: 'close' });
  if (!disk.readOnly) return told;
  console.error(told.message);
  return null;
}

async function saveToFifo(disk: Disk, fd: number, means: Stoppable): Promise<null> {
  const fifo = new FifoWriter(fd, means.signal);
  try {
    await streamDisk(disk, (bytes) => fifo.write(bytes), means);
    return null;
  } finally {
    fifo.close();
  }
}

function cannotWrite(name: string): FusetapError {
  return new FusetapError('USAGE', `${name} can be written, the other disk cannot`, {
    hint: 'a vbd keeps its mode: attach the other image with mode r',
  });
}

function otherSize(name: string, oldBytes: number, newBytes: number): FusetapError {
  return new FusetapError('USAGE', `${name} has ${oldBytes} bytes, the other image has ${newBytes}`, {
    hint: 'a vbd keeps its size while it is attached: give the image that size, or detach and attach',
  });
}
