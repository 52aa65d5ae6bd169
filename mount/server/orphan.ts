/**
 * A server whose keeper has died. It can do almost all: it has the devices, the images, their locks and the ram images.
 * It grants memory, can be found and listed, paused for a copy, detached from and stopped, and ends on a signal as a
 * keeper does. But nothing can be attached, and when it dies, nobody replaces it.
 *
 * If it ended, all vbds of the bus would be lost, so only the loss of its device is fatal. If writing its files or
 * listening on its socket fails, it tries again until that succeeds.
 */
import { FusetapError } from '../../drivers/errors.js';
import { mountOn } from '../../system/proc.js';
import { SideShell } from '../../system/side-shell.js';
import { probeWith } from '../../system/stuck-processes.js';
import { unitOf } from '../../system/systemd.js';
import type { Asked, DetachChoice, OrphanControl } from '../control/bus-control.js';
import { createControl } from '../control/http-server.js';
import {
  type BusCounters,
  type BusInfo,
  type DetachedVbd,
  type DetachResult,
  type FileNames,
  INTERFACE_VERSION,
  type MemoryInfo,
  type TransportName,
  type VbdInfo,
  type VbdStats,
} from '../control/interface.js';
import { namesOfBus } from '../control/names-of-bus.js';
import { withOpens } from '../control/partition-opens.js';
import { BusCounting, type CountedBus } from '../counting/bus-counting.js';
import { awaitUsersAtStop, UsersLimit } from '../ending/await-users.js';
import { Ending } from '../ending/ending.js';
import { EndingLimits } from '../ending/limit.js';
import { tellAdministrator } from '../ending/tell-administrator.js';
import { heldFiles, NOBODY, type WrittenBack, writeBackAbove } from '../ending/write-back.js';
import { unmount } from '../fuse/mounting/unmount.js';
import { awaitFree, freeAll, type LeavingVbd, lookUp, type Patience } from '../holders/await-free.js';
import type { HeldFile } from '../holders/find-holders.js';
import type { ForgetWaiters } from '../holders/forget-waiters.js';
import { freeToPause } from '../holders/free-to-pause.js';
import { lookUpInode } from '../holders/look-up.js';
import type { Ledger } from '../ledger/ledger.js';
import { BusEvents } from '../log/bus-events.js';
import { Pauses, USER } from '../pausing/pauses.js';
import { describeMemory } from '../ram/describe-memory.js';
import type { Bookkeeping } from '../runtime/bookkeeping.js';
import { removeBusFiles, removeSocket } from '../runtime/bus-files.js';
import type { BusPlace } from '../runtime/bus-place.js';
import { writeBusRecord } from '../runtime/bus-record.js';
import { keepEndedLog } from '../runtime/ended-logs.js';
import { StayFindable } from '../runtime/findable.js';
import { logEvent } from '../runtime/log.js';
import { refusePartition } from '../slots/refuse-partition.js';
import { parseSlot } from '../slots/slots.js';
import { VERSION } from '../version.js';
import type { VbdFacts } from './commands.js';
import type { ServerRamImages } from './ram-images.js';
import type { Server } from './server.js';

export interface OrphanContext {
  readonly place: BusPlace;
  readonly transport: TransportName;
  readonly allowOther: boolean;
  readonly server: Server;
  readonly memories: ServerRamImages;
  readonly books: Bookkeeping;
  readonly ledger: Ledger;
  readonly statsFd: number;
  /** the lock on the bus */
  readonly lockFd: number;
  readonly forgets: ForgetWaiters;
  /** called before this process removes the mount itself */
  ends(): void;
  /** ends this process */
  exit(status: number): void;
}

const ORPHAN_VERSION = { keeper: null, server: VERSION };

interface OrphanVbd {
  readonly nodeId: number;
  readonly facts: VbdFacts;
  readonly broken: string | null;
}

interface PausedNode {
  readonly nodeId: number;
}

export class Orphan implements OrphanControl {
  readonly #context: OrphanContext;
  readonly feed: BusEvents;
  readonly #findable: StayFindable;
  readonly #pauses = new Pauses<PausedNode>({
    pause: ({ nodeId }, owners) => this.#pause(nodeId, owners),
    resume: ({ nodeId }) => this.#resume(nodeId),
  });
  /** one object per node, because `Pauses` compares objects */
  readonly #paused = new Map<number, PausedNode>();
  /** found when it is first needed */
  #mountDev: string | null = null;
  readonly #ending: Ending<OrphanVbd>;
  readonly #shell = new SideShell();
  readonly #counting: BusCounting;
  #over = false;
  /** no client asked for the ending, so none can be told what went wrong */
  #isUnattended = false;
  #endedHow = 'stopped';
  #end: Promise<void> | null = null;

  constructor(context: OrphanContext) {
    probeWith(this.#shell);
    this.#context = context;
    const { place, lockFd, books } = context;
    this.feed = new BusEvents(place);
    this.#counting = new BusCounting(context.ledger, context.statsFd);
    const control = createControl(this, () => void this.#endOnce());
    const rewrite = async (): Promise<void> => {
      this.#record();
      await context.memories.rewrite();
    };
    this.#ending = new Ending<OrphanVbd>({
      giveUpActs: async () => {},
      vbds: () => context.server.shown(),
      takeAway: (vbd, limits) => this.#takeAway(vbd, limits),
      describe: (vbd) => this.#vbdInfo(vbd),
    });
    this.#findable = new StayFindable({ place, control, socket: 'server.sock', lockFd, books, rewrite });
  }

  /** Takes over pauses and links, writes bus.json, and listens on server.sock. Never rejects. */
  async begin(): Promise<void> {
    const { server, memories } = this.#context;
    logEvent({ event: 'orphaned', serverPid: process.pid });
    for (const { nodeId, holders } of server.shown()) {
      if (holders !== null) this.#pauses.takeOver(this.#pausedNode(nodeId), holders.length > 0 ? holders : [USER]);
    }
    await memories.publish();
    this.#record();
    await this.#findable.listenAtLast();
  }

  /** Ends the bus as a keeper would; the exit status is 0 if all data is durable. */
  async endBecause(why: string): Promise<void> {
    if (this.#isUnattended) return;
    logEvent(why.startsWith('SIG') ? { event: 'signal', signal: why } : { event: 'failed', reason: why });
    this.#isUnattended = true;
    if (why.startsWith('SIG')) await this.#awaitUsers();
    this.#endedHow = why.startsWith('SIG') ? `signal ${why}` : why;
    await this.#detachAll(true, { waitMs: 0 });
    await this.#endOnce();
  }

  /** If its unit is being stopped: until nobody uses the bus any more. */
  async #awaitUsers(): Promise<void> {
    const { runtimeDir } = this.#context.place;
    const files = (): Promise<HeldFile[]> => this.#filesInUse();
    // its keeper has checked the limit when it started
    await awaitUsersAtStop(new UsersLimit(), { files, runtimeDir });
  }

  get over(): boolean {
    return this.#over;
  }

  get serverVersion(): string {
    return VERSION;
  }

  async showBus(): Promise<BusInfo> {
    const { place } = this.#context;
    return {
      bus: place.name,
      path: place.path,
      transport: this.#context.transport,
      allowOther: this.#context.allowOther,
      keeperPid: null,
      serverPid: process.pid,
      restarts: 0,
      state: 'orphaned',
      bookkeeping: this.#context.books.trouble,
      unit: unitOf('self'),
      interface: INTERFACE_VERSION,
      version: ORPHAN_VERSION,
      vbds: await this.listVbds(),
    };
  }

  async listVbds(): Promise<VbdInfo[]> {
    return this.#context.server.shown().map((vbd) => this.#vbdInfo(vbd));
  }

  stats(): VbdStats[] {
    const { server, place, statsFd } = this.#context;
    return server.stats(place.name, statsFd);
  }

  async names(): Promise<FileNames[]> {
    const { server, place } = this.#context;
    return namesOfBus(place, (await server.names()).files);
  }

  async counters({ query: { since } }: Asked<'counters'>): Promise<BusCounters> {
    const { server, place } = this.#context;
    const bus: CountedBus = {
      name: place.name,
      path: place.path,
      mountDev: await this.#findMount(),
      state: 'orphaned',
      restarts: null,
      keeperPid: null,
      serverPid: process.pid,
      files: server.counted().map((file) => ({ ...file, state: 'orphaned', imageState: null })),
    };
    return this.#counting.count(bus, since);
  }

  memory(): MemoryInfo {
    return describeMemory(this.#context.place.runtimeDir);
  }

  async pause({ vdev, query: { copy = USER }, signal }: Asked<'pause'>): Promise<VbdInfo> {
    const vbd = this.#find(vdev);
    await this.#pauses.addFor(this.#pausedNode(vbd.nodeId), copy, signal);
    return this.#vbdInfo(this.#find(vdev));
  }

  async resume({ vdev, query: { copy = USER } }: Asked<'resume'>): Promise<VbdInfo> {
    const vbd = this.#find(vdev);
    await this.#pauses.remove(this.#pausedNode(vbd.nodeId), copy);
    return this.#vbdInfo(this.#find(vdev));
  }

  async #pause(nodeId: number, owners: readonly string[]): Promise<void> {
    const { server } = this.#context;
    const vbd = server.shown().find((shown) => shown.nodeId === nodeId);
    if (vbd?.facts.passthrough !== true) await server.pause(nodeId, owners);
    else {
      const file = { vdev: vbd.facts.vdev, nodeId };
      await freeToPause(() => this.#ensureFileUnused(file, { waitMs: 0 }));
      await server.pause(nodeId, owners);
      await this.#allowFileOpens(file);
    }
    this.#record();
  }

  async #resume(nodeId: number): Promise<void> {
    // detached meanwhile: nothing is paused
    if (!this.#context.server.shown().some((vbd) => vbd.nodeId === nodeId)) return;
    await this.#context.server.resume(nodeId);
    this.#record();
  }

  /** @param nodeId of a vbd or of one of its partitions */
  #isPaused(nodeId: number): boolean {
    const { server } = this.#context;
    const isOf = (vbd: OrphanVbd): boolean => this.#filesOf(vbd).some((file) => file.nodeId === nodeId);
    return server.shown().some((vbd) => vbd.holders !== null && isOf(vbd));
  }

  #pausedNode(nodeId: number): PausedNode {
    const node = this.#paused.get(nodeId) ?? { nodeId };
    this.#paused.set(nodeId, node);
    return node;
  }

  async detach({ vdev, query, signal }: Asked<'detach'>): Promise<DetachResult> {
    const gone = await this.#detachVbd(this.#find(vdev), { ...query, signal });
    this.#over = this.#context.server.shown().length === 0;
    if (!this.#over) this.#record();
    return { vbds: [gone], ended: this.#over };
  }

  /** @throws FusetapError NOT_FOUND; USAGE for a partition */
  #find(vdev: string): OrphanVbd {
    const { slot } = parseSlot(vdev);
    const { server, place } = this.#context;
    const vbds = server.shown();
    const vbd = vbds.find(({ facts }) => facts.slot === slot);
    if (vbd !== undefined) return vbd;
    const disk = vbds.find(({ facts }) => facts.partitions?.some((partition) => partition.slot === slot));
    if (disk !== undefined) throw refusePartition(vdev, disk.facts.vdev, `bus ${place.name}`);
    throw new FusetapError('NOT_FOUND', `no vbd ${vdev} on bus ${place.name}`);
  }

  stop({ body: { force, waitMs }, signal }: Asked<'stop'>): Promise<DetachResult> {
    return this.#detachAll(force, { waitMs, signal });
  }

  async #detachAll(force: boolean, patience: Patience): Promise<DetachResult> {
    const vbds = this.#context.server.shown();
    const mustBeFree = !force && !this.#ending.begun;
    const deadline = performance.now() + patience.waitMs;
    if (mustBeFree) {
      await freeAll(vbds, {
        free: (vbd) => this.#ensureUnused(vbd, { ...patience, waitMs: Math.max(0, deadline - performance.now()) }),
        show: (vbd) => this.#allowOpens(vbd),
      });
    }
    const gone = await this.#ending.run(force);
    this.#over = true;
    return { vbds: gone, ended: true };
  }

  async #detachVbd(vbd: OrphanVbd, { force, waitMs, signal }: DetachChoice): Promise<DetachedVbd> {
    if (!force) await this.#ensureUnused(vbd, { waitMs, signal });
    if (!force && signal.aborted) {
      await this.#allowOpens(vbd);
      throw signal.reason;
    }
    return await this.#takeAway(vbd, force ? new EndingLimits().start() : null);
  }

  async #takeAway(vbd: OrphanVbd, limits: EndingLimits | null): Promise<DetachedVbd> {
    const info = this.#vbdInfo(vbd);
    const above = limits === null ? NOBODY : await this.#writeBack(vbd, limits);
    const { flushError } = await this.#context.server.detach(vbd.nodeId);
    const error = flushError ?? above.error;
    const cutOff = above.holders;
    return { ...info, ...(error && { error }), ...(cutOff.length > 0 && { cutOff }) };
  }

  async #writeBack(vbd: OrphanVbd, { writeBack }: EndingLimits): Promise<WrittenBack> {
    const { runtimeDir } = this.#context.place;
    const choice = { limit: writeBack, readOnly: vbd.facts.mode === 'r', runtimeDir };
    return await writeBackAbove(vbd.facts.vdev, await this.#filesInUse([vbd]), choice);
  }

  async #filesInUse(vbds: readonly OrphanVbd[] = this.#context.server.shown()): Promise<HeldFile[]> {
    const { place, ledger, transport } = this.#context;
    const opens = ledger.countHandles();
    const held = vbds.flatMap((vbd) => this.#filesOf(vbd)).filter(({ nodeId }) => opens.has(nodeId));
    return await heldFiles({ place, mountDev: await this.#findMount(), transport }, held);
  }

  /** Its partitions first, as in the keeper. */
  #filesOf({ nodeId, facts }: OrphanVbd): LeavingVbd[] {
    const partitions = this.#context.server.partitionsOf(nodeId);
    return [...partitions.map(({ name, nodeId }) => ({ vdev: name, nodeId })), { vdev: facts.vdev, nodeId }];
  }

  async #ensureUnused(vbd: OrphanVbd, patience: Patience): Promise<void> {
    const deadline = Date.now() + patience.waitMs;
    await freeAll(this.#filesOf(vbd), {
      free: (file) => this.#ensureFileUnused(file, { ...patience, waitMs: Math.max(0, deadline - Date.now()) }),
      show: (file) => this.#allowFileOpens(file),
    });
  }

  async #allowOpens(vbd: OrphanVbd): Promise<void> {
    for (const file of this.#filesOf(vbd)) await this.#allowFileOpens(file);
  }

  async #allowFileOpens({ nodeId }: LeavingVbd): Promise<void> {
    await this.#context.server.leave({ op: 'leave', nodeId, leaving: false });
  }

  async #ensureFileUnused(file: LeavingVbd, patience: Patience): Promise<void> {
    const { place, server, ledger, forgets } = this.#context;
    const mountDev = await this.#findMount();
    await awaitFree(
      {
        bus: place.name,
        runtimeDir: place.runtimeDir,
        lookUp: (path) => lookUp(this.#shell, path),
        mountpoint: place.path,
        mountDev,
        ...(this.#context.transport === 'fuse-native' && { inodeOf: lookUpInode }),
        setLeaving: async (id, leaving) => (await server.leave({ op: 'leave', nodeId: id, leaving })).held,
        // nobody replaces it
        restarts: () => 0,
        isPaused: () => this.#isPaused(file.nodeId),
        opens: (id) => ledger.countHandles().get(id) ?? 0,
        awaitForget: (id, timeoutMs, given) => forgets.wait(id, timeoutMs, given),
      },
      file,
      patience,
    );
  }

  async #findMount(): Promise<string> {
    const { path } = this.#context.place;
    this.#mountDev ??= (await mountOn(path))?.dev ?? null;
    return this.#mountDev ?? '';
  }

  #vbdInfo({ nodeId, facts, broken }: OrphanVbd): VbdInfo {
    const { ledger, server } = this.#context;
    const opens = ledger.countHandles();
    return {
      ...facts,
      partitions: withOpens(facts.partitions, server.partitionsOf(nodeId), opens),
      state: 'orphaned',
      opens: opens.get(nodeId) ?? 0,
      keeperPid: null,
      serverPid: process.pid,
      restarts: 0,
      changedOutside: false,
      broken,
      imageState: null,
      writtenOutside: false,
      movedTo: null,
      deleted: false,
      version: ORPHAN_VERSION,
    };
  }

  refusal(): FusetapError {
    const { name } = this.#context.place;
    return new FusetapError('BUSY', `bus ${name} is orphaned: its keeper died`, {
      hint: `fusetap stop --bus ${name}, then attach again`,
    });
  }

  /**
   * Writes bus.json: it tells others which images and ram images this bus uses, and so which vbds to pause for a copy.
   */
  #record(): void {
    const { place, server, books } = this.#context;
    const record = {
      bus: place.name,
      path: place.path,
      interface: INTERFACE_VERSION,
      keeperPid: null,
      serverPid: process.pid,
      vbds: server.shown().map(({ nodeId, holders, facts: { vdev, driver, mode, image, disk } }) => {
        const { identities, memory, memoriesBelow } = server.bytesOf(nodeId);
        const whole = disk === undefined ? {} : { disk, identities };
        const identity = identities[0] ?? null;
        const below = memoriesBelow.length === 0 ? {} : { memoriesBelow };
        return { vdev, driver, mode, image, identity, ...whole, memory, ...below, paused: holders !== null };
      }),
    };
    books.attempt('bus.json', () => writeBusRecord(place.stateDir, record));
  }

  #endOnce(): Promise<void> {
    this.#end ??= this.#endNow();
    return this.#end;
  }

  async #endNow(): Promise<void> {
    const { place, ends, exit, books } = this.#context;
    this.#findable.end();
    books.end();
    ends();
    removeSocket(place, 'server.sock');
    try {
      await unmount(place.path, (await this.#findMount()) || undefined);
    } catch (error) {
      console.error(error);
    }
    const lost = this.#isUnattended ? this.#ending.lost : [];
    logEvent({ event: 'ended', how: this.#endedHow, durable: this.#ending.lost.length === 0 });
    await this.feed.end();
    if (lost.length === 0) keepEndedLog(place);
    removeBusFiles(place, { keepLog: lost.length > 0 });
    await tellAdministrator(lost);
    exit(lost.length > 0 ? 1 : 0);
  }
}
