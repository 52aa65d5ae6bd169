/**
 * The keeper owns a bus. It has everything that must outlive the server: the mount and its descriptors, the vbds with
 * their images, locks and ram images, and the ledger. It does no I/O on the data path and runs no driver code.
 *
 *      keeper ─┬─ verbs/         attach, detach, pause, save, reset, …     ┐
 *              ├─ ending.ts      ends the bus                              │ all use bus-parts.ts
 *              ├─ replay.ts      tells a new server of the vbds            ┘
 *              └─ supervision/   keeps a server under the bus
 */
import type { ConnectionState } from '../../drivers/driver.js';
import { FusetapError } from '../../drivers/errors.js';
import { isSimple, remoteUri } from '../../drivers/graph.js';
import { E } from '../../system/libc.js';
import { SideShell } from '../../system/side-shell.js';
import { probeWith } from '../../system/stuck-processes.js';
import { unitOf } from '../../system/systemd.js';
import { within } from '../../system/within.js';
import type { Asked, DetachChoice, KeeperControl } from '../control/bus-control.js';
import {
  type AttachRequest,
  type AttachResult,
  type BusCounters,
  type BusInfo,
  type BusWishes,
  type ChangesResult,
  type CommitResult,
  type DetachedVbd,
  type DetachResult,
  type FileNames,
  INTERFACE_VERSION,
  type MapResult,
  type MemoryInfo,
  type SaveResult,
  type UpgradeResult,
  type VbdInfo,
  type VbdStats,
} from '../control/interface.js';
import type { CopyWatcher } from '../control/progress.js';
import { BusCounting } from '../counting/bus-counting.js';
import { awaitUsersAtStop, type UsersLimit } from '../ending/await-users.js';
import { Ending } from '../ending/ending.js';
import { heldFiles } from '../ending/write-back.js';
import { closeDevices, type KernelMount } from '../fuse/mounting/device.js';
import { cannotPassThrough, registerBacking, unregisterBacking } from '../fuse/mounting/passthrough.js';
import { abortConnection, busMounts, unmount } from '../fuse/mounting/unmount.js';
import type { Patience } from '../holders/await-free.js';
import type { HeldFile } from '../holders/find-holders.js';
import { ForgetWaiters } from '../holders/forget-waiters.js';
import { Answering } from '../images/answering.js';
import { identityOf } from '../images/open-image.js';
import { Ledger } from '../ledger/ledger.js';
import { BusEvents } from '../log/bus-events.js';
import { type CreditedVbd, RamCredit } from '../ram/credit.js';
import { describeMemory } from '../ram/describe-memory.js';
import { RamImages } from '../ram/ram-images.js';
import { Bookkeeping } from '../runtime/bookkeeping.js';
import { removeMountpoint } from '../runtime/bus-files.js';
import { makeMountpoint } from '../runtime/bus-place.js';
import { findVbdOfPid, writeBusRecord } from '../runtime/bus-record.js';
import { logEvent } from '../runtime/log.js';
import type { Slot } from '../slots/slots.js';
import { VERSION } from '../version.js';
import { abandonBus, type BegunBus, type KeeperOptions } from './beginning.js';
import { mountBus, releaseMount } from './mounting.js';
import { clearMountpoint } from './mountpoint.js';
import { type FileOwner, ownerOf, ownIdentity } from './ownership.js';
import { prepareRemount } from './remount.js';
import { RunningAttaches } from './running-attaches.js';
import type { AttachContext } from './sources/attach-context.js';
import { supervise } from './supervise.js';
import type { Supervisor } from './supervision/supervisor.js';
import { WritebackRelief } from './supervision/writeback-relief.js';
import { type BusParts, deviceOf } from './vbds/bus-parts.js';
import { ImageWatch } from './vbds/image-watch.js';
import { KeptDisks, mustBeConnected, tellConnection } from './vbds/kept-disks.js';
import { LedgerIndexes } from './vbds/ledger-indexes.js';
import { hasFile, identitiesOf, type Vbd } from './vbds/vbd.js';
import { Activities } from './vbds/vbd-activity.js';
import { filesInUse, filesOf } from './vbds/vbd-files.js';
import {
  busState,
  busVersion,
  countedBus,
  fileNames,
  vbdFacts,
  vbdInfo,
  vbdInfoUnseen,
  vbdStats,
} from './vbds/vbd-report.js';
import { VbdTable } from './vbds/vbd-table.js';
import { attach } from './verbs/attach.js';
import { changes } from './verbs/changes.js';
import { commit } from './verbs/commit.js';
import { Detaching } from './verbs/detach.js';
import { DetachingWhenUnused } from './verbs/detach-when-unused.js';
import { logCopy } from './verbs/log-copy.js';
import { map } from './verbs/map.js';
import { Pausing } from './verbs/pause.js';
import { reread } from './verbs/reread.js';
import { reset } from './verbs/reset.js';
import { resize } from './verbs/resize.js';
import { save } from './verbs/save.js';
import { saveToDisk } from './verbs/save-to-disk.js';
import { refuseWhereStuck } from './verbs/stuck-requests.js';
import { swap } from './verbs/swap.js';

/** how long a server that was killed may take to exit */
const KILL_LIMIT_MS = 5_000;

export class Keeper implements KeeperControl {
  readonly #bus: BusParts;
  /** writes the files for readers that cannot ask the keeper */
  readonly books = new Bookkeeping();
  readonly feed: BusEvents;
  readonly #indexes: LedgerIndexes;
  readonly #detaching: Detaching;
  readonly #whenUnused: DetachingWhenUnused;
  readonly #pausing: Pausing;
  readonly #relief: WritebackRelief;
  readonly #counting: BusCounting;
  readonly #runningAttaches = new RunningAttaches();
  readonly #ending: Ending<Vbd>;
  /** makes a supervisor for a mount */
  readonly #supervise: (mount: KernelMount, restarts?: number) => Supervisor;
  #nextNodeId = 2;
  #persistent: boolean;
  #over = false;
  #endedHow = 'stopped';
  /** data of a vbd that was detached may be lost */
  #hasLost = false;
  /** settles when the connection of a bus that was given up is aborted and its mount removed */
  #gaveUp: Promise<void> = Promise.resolve();
  /** called when the bus is over although no client has asked for that */
  #endedItself: () => void = () => {};
  /** the mount that is under way after the bus was given up */
  #remounting: Promise<void> | null = null;

  /** Mounts a bus and starts its server; resolves when it answers. */
  static async start(options: KeeperOptions, begun: BegunBus): Promise<Keeper> {
    let keeper: Keeper | null = null;
    try {
      keeper = new Keeper(options, begun);
      await keeper.#begin();
      return keeper;
    } catch (error) {
      await keeper?.server.end();
      await abandonBus(options.place, begun);
      throw error;
    }
  }

  private constructor(
    { place, transport, allowOther, persistent }: KeeperOptions,
    { mount, passed, server: first }: BegunBus,
  ) {
    const { statsFd } = passed;
    const ledger = new Ledger(passed.ledgerFd);
    const vbds = new VbdTable(place.name);
    const memories = new RamImages(place.runtimeDir, place.name, this.books);
    const credit = new RamCredit(ledger, memories, () => vbds.all().flatMap(withMemory));
    const forgets = new ForgetWaiters();
    this.#supervise = (mounted, restarts) => {
      const memoryWanted = (nodeId: number): void => credit.wanted(nodeId);
      const gaveUp = (why: string): void => this.#fail(why);
      const connection = (keptId: number, state: ConnectionState): void => tellConnection(this.#bus, keptId, state);
      const begun = { passed, mount: mounted, first: mounted === mount ? first : null };
      return supervise({ bus: () => this.#bus, ...begun, memoryWanted, connection, gaveUp }, restarts);
    };
    const server = this.#supervise(mount);
    const record = (): void => this.#record();
    const known = { place, transport, allowOther, mount, mountDev: '', failed: false, serverMayHang: false };
    const activities = new Activities(place.name);
    const shell = new SideShell();
    probeWith(shell);
    const images = new ImageWatch(shell);
    const kept = new KeptDisks();
    const parts = { ledger, statsFd, server, memories, vbds, kept, forgets, activities, images, shell };
    this.#bus = { ...known, ...parts, answering: new Answering(shell), record };
    images.begin(this.#bus);
    this.#persistent = persistent;
    this.#indexes = new LedgerIndexes(place.name);
    this.#detaching = new Detaching(this.#bus);
    this.#whenUnused = new DetachingWhenUnused(this.#bus, this.#detaching, () => {
      if (this.endIfIdle()) this.#endedItself();
    });
    this.#ending = new Ending<Vbd>({
      giveUpActs: async () => {
        const why = endingError(place.name);
        const cancelled = vbds.all().map((vbd) => activities.cancel(vbd, why));
        await Promise.all([this.#runningAttaches.abortAll(why), ...cancelled]);
      },
      vbds: () => vbds.all(),
      takeAway: (vbd, limits) => this.#detaching.takeAway(vbd, limits),
      describe: (vbd) => vbdInfoUnseen(this.#bus, vbd),
    });
    this.feed = new BusEvents(place);
    this.#counting = new BusCounting(ledger, statsFd);
    this.#pausing = new Pausing(this.#bus, this.#detaching);
    this.#relief = new WritebackRelief({
      inFlight: () => ledger.work().map(({ unique }) => unique),
      serverPid: () => this.#bus.server.pid,
      images: () => vbds.writtenImages(),
      flushFailed: (image, errno) => {
        const vbdsOfImage = vbds.all().filter(({ source }) => hasFile(source, image));
        for (const { ledgerIndex } of vbdsOfImage) ledger.noteFlushError(ledgerIndex, errno);
      },
    });
  }

  async #begin(): Promise<void> {
    const { path } = this.#bus.place;
    if (this.#bus.transport === 'kernel') await this.#findMount();
    await this.#bus.server.start();
    if (this.#bus.mountDev === '') await this.#findMount();
    this.#record();
    logEvent({ event: 'started', path, keeperPid: process.pid, serverPid: this.#bus.server.pid, version: VERSION });
  }

  async #findMount(): Promise<void> {
    const { path } = this.#bus.place;
    const [own] = await busMounts(path);
    if (own === undefined) throw new FusetapError('FAILED', `the mount on ${path} is gone already`);
    this.#bus.mountDev = own.dev;
  }

  get server(): Supervisor {
    return this.#bus.server;
  }

  get over(): boolean {
    return this.#over;
  }

  get serverVersion(): string | null {
    return this.#bus.server.version;
  }

  /** Attaches, and resolves when the file can be opened. It is undone if the client goes away before it has the answer. */
  async attach({ body: request, ...watcher }: Asked<'attach'>): Promise<AttachResult> {
    this.#checkRunning();
    try {
      const owner = ownerOf(request, ownIdentity());
      const place = this.#bus.vbds.reserveFree(request.vdev, request.partitions ?? false);
      const { vbd, result } = await this.#runningAttaches
        .run(watcher, (own) => this.#attachAt(place, owner, request, own))
        .finally(() => this.#bus.vbds.unreserve(place.slot));
      await this.#undoIfGone(vbd, watcher.signal);
      return result;
    } finally {
      // even if nothing was reserved: the bus may have been started for this attach
      this.endIfIdle();
    }
  }

  async #attachAt(
    place: Slot,
    owner: FileOwner,
    request: AttachRequest,
    watcher: CopyWatcher,
  ): Promise<{ vbd: Vbd; result: AttachResult }> {
    const told = logCopy(request.image, watcher);
    const { vbd, notes } = await attach(this.#attachContext(owner), this.#fitToTransport(request), place, told);
    this.#bus.vbds.add(vbd);
    this.#record();
    logAttached(vbd);
    // this look at the image is also the first one: what the driver has changed while it opened it is no change from outside
    return { vbd, result: withNotes(await vbdInfo(this.#bus, vbd), notes) };
  }

  /**
   * Detaches a new vbd if its client goes away, now or after the answer was sent.
   * @throws the reason of the signal if the client is gone already
   */
  async #undoIfGone(vbd: Vbd, signal: AbortSignal): Promise<void> {
    if (signal.aborted) {
      await this.#undo(vbd);
      throw signal.reason;
    }
    const undo = async (): Promise<void> => {
      await this.#undo(vbd);
      if (this.endIfIdle()) this.#endedItself();
    };
    signal.addEventListener('abort', () => void undo(), { once: true });
  }

  /** Others may use the vbd already: then it goes when they are done. */
  async #undo(vbd: Vbd): Promise<void> {
    if (!this.#bus.vbds.has(vbd)) return;
    logEvent({ event: 'undone', vdev: vbd.vdev });
    const choice = { force: false, waitMs: 0, signal: new AbortController().signal };
    await this.#detaching.detach(vbd, choice).catch(() => this.#whenUnused.mark(vbd));
  }

  /**
   * Detaches one vbd. When this resolves, its data is durable and its file is gone.
   * @throws FusetapError NOT_FOUND, or BUSY with the holders
   */
  async detach({ vdev, query, signal }: Asked<'detach'>): Promise<DetachResult> {
    const vbd = this.#bus.vbds.find(vdev);
    const gone = (await this.#whenUnused.giveWay(vbd)) ?? (await this.#detachFor(vbd, { ...query, signal }));
    if (gone.error !== undefined) this.#hasLost = true;
    this.endIfIdle();
    return { vbds: [gone], ended: this.#over };
  }

  async #detachFor(vbd: Vbd, choice: DetachChoice): Promise<DetachedVbd> {
    return await this.#detaching.detach(vbd, choice).catch((error: unknown) => {
      // the removal goes on after its client has left
      vbd.removal?.finally(() => this.endIfIdle()).catch(() => {});
      throw error;
    });
  }

  /** Makes the bus detach the vbd when nobody uses it any more. */
  async detachWhenUnused({ vdev }: Asked<'detachWhenUnused'>): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#bus.vbds.find(vdev);
    this.#whenUnused.mark(vbd);
    return await vbdInfo(this.#bus, vbd);
  }

  /** @param ended called when the last vbd was detached because nobody used it, and the bus is over */
  onEndByItself(ended: () => void): void {
    this.#endedItself = ended;
  }

  /** @see detachAll */
  stop({ body: { force, waitMs }, signal }: Asked<'stop'>): Promise<DetachResult> {
    return this.detachAll(force, { waitMs, signal });
  }

  /**
   * Detaches all vbds and ends the bus. If the ending has begun already, waits for it.
   * @throws FusetapError BUSY if a vbd is still in use after the wait and `force` is not set; nothing was detached then
   */
  async detachAll(force: boolean, patience: Patience = { waitMs: 0 }): Promise<DetachResult> {
    if (!force || patience.waitMs > 0) await this.#ensureUnused(force, patience);
    const vbds = await this.#ending.run(force || this.#bus.failed);
    this.#persistent = false;
    this.#over = true;
    return { vbds, ended: true };
  }

  /** @see awaitUsersAtStop */
  async awaitUsersAtStop(limit: UsersLimit, signal: AbortSignal): Promise<void> {
    const bus = this.#bus;
    const files = async (): Promise<HeldFile[]> => {
      if (bus.failed || this.#ending.begun) return [];
      return await heldFiles(
        bus,
        bus.vbds.all().flatMap((vbd) => filesInUse(bus, vbd)),
      );
    };
    await awaitUsersAtStop(limit, { files, runtimeDir: bus.place.runtimeDir, signal });
  }

  async #ensureUnused(force: boolean, patience: Patience): Promise<void> {
    if (this.#bus.failed || this.#ending.begun) return;
    const { vbds, images } = this.#bus;
    await Promise.all(vbds.all().map((vbd) => this.#whenUnused.giveWay(vbd)));
    if (!force) {
      vbds.all().forEach(mustBeConnected);
      await Promise.all(vbds.all().map((vbd) => images.mustAnswer(this.#bus, vbd)));
    }
    try {
      await this.#detaching.ensureAllUnused(this.#bus.vbds.all(), patience);
    } catch (error) {
      // another client has begun the ending meanwhile: wait for that one
      if (this.#bus.failed || this.#ending.begun) return;
      if (!force || !(error instanceof FusetapError && error.code === 'BUSY')) throw error;
    }
  }

  /** Replaces the server by one that runs the code installed now. */
  async upgrade({ body: { program } }: Asked<'upgrade'>): Promise<UpgradeResult> {
    this.#checkRunning();
    await refuseWhereStuck(this.#bus);
    const upgraded = await this.#bus.server.upgrade(program);
    this.#record();
    return { bus: await this.showBus(), ...upgraded };
  }

  /** Makes the bus stay when its last vbd is detached. A bus that was given up is mounted again, with its vbds. */
  async start({ body: wishes }: Asked<'start'>): Promise<BusInfo> {
    this.#checkWishes(wishes);
    if (this.#bus.failed && !this.#over && !this.#ending.begun) {
      this.#remounting ??= this.#remount().finally(() => {
        this.#remounting = null;
      });
      await this.#remounting;
    }
    this.#checkRunning();
    this.#persistent = true;
    return await this.showBus();
  }

  async #remount(): Promise<void> {
    const bus = this.#bus;
    await this.#gaveUp;
    await bus.server.end();
    releaseMount(bus.mount);
    makeMountpoint(bus.place);
    await clearMountpoint(bus.place);
    try {
      bus.mountDev = '';
      bus.mount = await mountBus(bus);
      bus.server = this.#supervise(bus.mount, bus.server.restarts + 1);
      prepareRemount(bus, (fd) => this.#register(fd));
      await this.#begin();
      bus.failed = false;
      this.#record();
    } catch (error) {
      await bus.server.end();
      await abandonBus(bus.place, { mount: bus.mount, server: null });
      throw error;
    }
  }

  /** Registers an open file with the kernel for passthrough. @returns its id, or −errno */
  #register(fd: number): number {
    const { mount } = this.#bus;
    return mount.negotiated.canPassThrough ? registerBacking(deviceOf(this.#bus), fd) : -E.EOPNOTSUPP;
  }

  async listVbds(): Promise<VbdInfo[]> {
    return await Promise.all(this.#bus.vbds.sorted().map((vbd) => vbdInfo(this.#bus, vbd)));
  }

  /** What the vbds and partitions hold. */
  async names(): Promise<FileNames[]> {
    return await fileNames(this.#bus);
  }

  stats(): VbdStats[] {
    return vbdStats(this.#bus);
  }

  /** All that the bus counts. */
  counters({ query: { since } }: Asked<'counters'>): BusCounters {
    return this.#counting.count(countedBus(this.#bus), since);
  }

  async showBus(): Promise<BusInfo> {
    const { place, transport, allowOther, server } = this.#bus;
    return {
      bus: place.name,
      path: place.path,
      transport,
      allowOther,
      keeperPid: process.pid,
      serverPid: server.pid,
      restarts: server.restarts,
      state: busState(this.#bus),
      bookkeeping: this.books.trouble,
      unit: unitOf('self'),
      interface: INTERFACE_VERSION,
      version: busVersion(this.#bus),
      vbds: await this.listVbds(),
    };
  }

  /** Whether all acknowledged writes are durable, after the ending. */
  get isDurable(): boolean {
    return !this.#hasLost && this.#ending.lost.length === 0;
  }

  /** What ended the bus, as words for the log. */
  get endedHow(): string {
    return this.#endedHow;
  }

  /** Whether the server may outlive the bus, because a disk does not answer. */
  get serverMayHang(): boolean {
    return this.#bus.serverMayHang;
  }

  /** After the ending: the vbds whose data is not all durable. */
  get notDurable(): readonly DetachedVbd[] {
    return this.#ending.lost;
  }

  /** Whether a vbd was detached because nobody used it, and its data was not all durable. */
  get hasLostUnseen(): boolean {
    return this.#whenUnused.lost.length > 0;
  }

  /** Removes mount and server. To be called when the bus is `over` and its clients have their answers. */
  async end(): Promise<void> {
    const { place, server, mount, mountDev, memories } = this.#bus;
    this.#relief.end();
    await this.#gaveUp;
    // processes that wait for a disk that does not answer get an error now
    if (this.#bus.serverMayHang) await abortConnection(place.path, mountDev);
    await unmount(place.path, mountDev);
    // a server that waits for a disk that hangs cannot be killed before the disk answers
    const hasEnded = server.end().then(() => true);
    if (!(await within(hasEnded, KILL_LIMIT_MS, false))) this.#bus.serverMayHang = true;
    closeDevices(mount);
    await memories.end().catch((error: unknown) => console.error(error));
    this.books.end();
  }

  /** Pauses the I/O of a vbd: requests wait, without an error, until `resume`. */
  async pause({ vdev, query, signal }: Asked<'pause'>): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#bus.vbds.find(vdev);
    await this.#pausing.pause(vbd, { ...query, signal });
    return await vbdInfo(this.#bus, vbd);
  }

  /** Lets the I/O of a paused vbd go on. */
  async resume({ vdev, query }: Asked<'resume'>): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#bus.vbds.find(vdev);
    await this.#pausing.resume(vbd, query.copy);
    return await vbdInfo(this.#bus, vbd);
  }

  /** Gives a vbd another image. */
  async swap({ vdev, body: request, ...watcher }: Asked<'swap'>): Promise<AttachResult> {
    this.#checkRunning();
    const vbd = this.#bus.vbds.find(vdev);
    const [bus, pausing, detaching] = [this.#bus, this.#pausing, this.#detaching];
    const swapping = { bus, pausing, detaching, context: this.#attachContext() };
    const notes = await swap(swapping, vbd, request, watcher);
    return withNotes(await vbdInfo(this.#bus, vbd), notes);
  }

  async save({ vdev, body: request, ...watcher }: Asked<'save'>): Promise<SaveResult> {
    this.#checkRunning();
    const [bus, pausing, vbd] = [this.#bus, this.#pausing, this.#bus.vbds.find(vdev)];
    const { path, to, force } = request;
    if (to !== undefined) {
      return await saveToDisk({ bus, pausing, context: this.#attachContext() }, vbd, { to, force }, watcher);
    }
    return await save(bus, pausing, vbd, { path: path ?? '', force, watcher });
  }

  async reset({ vdev, ...watcher }: Asked<'reset'>): Promise<VbdInfo> {
    this.#checkRunning();
    const { vbds, ledger } = this.#bus;
    try {
      const vbd = vbds.find(vdev);
      // it is attached again, but to its users it is the same file
      const context = this.#attachContext(ledger.attributes(vbd.ledgerIndex));
      await reset({ bus: this.#bus, detaching: this.#detaching, context }, vbd, watcher);
      return await vbdInfo(this.#bus, vbds.find(vdev));
    } finally {
      this.endIfIdle();
    }
  }

  /** Moves what a vbd has over its base into the base. */
  async commit({ vdev, ...watcher }: Asked<'commit'>): Promise<CommitResult> {
    this.#checkRunning();
    return await commit({ bus: this.#bus, context: this.#attachContext() }, this.#bus.vbds.find(vdev), watcher);
  }

  /** Reads the partition table of a vbd again. */
  async reread({ vdev, signal }: Asked<'reread'>): Promise<AttachResult> {
    this.#checkRunning();
    const { vbds, ledger } = this.#bus;
    const vbd = vbds.find(vdev);
    const context = this.#attachContext(ledger.attributes(vbd.ledgerIndex));
    const notes = await reread({ bus: this.#bus, detaching: this.#detaching, context }, vbd, signal);
    return withNotes(await vbdInfo(this.#bus, vbd), notes);
  }

  /** Gives a vbd the size that its image has now. */
  async resize({ vdev, signal }: Asked<'resize'>): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#bus.vbds.find(vdev);
    await resize({ bus: this.#bus, context: this.#attachContext() }, vbd, signal);
    return await vbdInfo(this.#bus, vbd);
  }

  /** Where a vbd differs from its base. */
  async changes({ vdev, query }: Asked<'changes'>): Promise<ChangesResult> {
    this.#checkRunning();
    return await changes(this.#bus, this.#bus.vbds.find(vdev), query.offset);
  }

  /** What the ranges of a disk are, and in which file. */
  async map({ vdev, query }: Asked<'map'>): Promise<MapResult> {
    this.#checkRunning();
    return await map(this.#bus, this.#bus.vbds.find(vdev), query.offset);
  }

  memory(): MemoryInfo {
    return describeMemory(this.#bus.place.runtimeDir);
  }

  /** @param owner of the files that are made; not used if none is made */
  #attachContext(owner: FileOwner = ownerOf({}, ownIdentity())): AttachContext {
    const { server, memories, place, mountDev, ledger, answering, kept } = this.#bus;
    return {
      runtimeDir: place.runtimeDir,
      kept,
      server,
      memories,
      mountpoint: place.path,
      mountDev,
      answering,
      newNode: (holdings, readOnly) => {
        const ledgerIndex = this.#indexes.take();
        // a server that may still use the vbd may still write its counters there
        holdings.own('a place in the ledger', (usedByServer) => usedByServer || this.#indexes.free(ledgerIndex));
        this.#counting.reset(ledgerIndex);
        const { uid, gid, mode } = owner;
        ledger.resetFile(ledgerIndex, { uid, gid, mode: readOnly ? mode & ~0o222 : mode }, Date.now());
        return { nodeId: this.#nextNodeId++, ledgerIndex };
      },
      register: (fd) => this.#register(fd),
      unregister: (id) => unregisterBacking(deviceOf(this.#bus), id),
      facts: (vbd) => vbdFacts(this.#bus, vbd),
      describePid: (pid, image) => findVbdOfPid(place.runtimeDir, pid, identityOf(image)),
    };
  }

  /** @throws FusetapError BUSY if the bus was started with another transport, or without --allow-other */
  #checkWishes(wishes: BusWishes): void {
    const { transport, allowOther, place } = this.#bus;
    const hint = `choose another bus with --bus, or fusetap stop --bus ${place.name} first`;
    if (wishes.transport !== undefined && wishes.transport !== transport) {
      throw new FusetapError('BUSY', `bus ${place.name} runs on transport ${transport}, not ${wishes.transport}`, {
        hint,
      });
    }
    if (wishes.allowOther && !allowOther) {
      throw new FusetapError('BUSY', `bus ${place.name} was started without --allow-other`, { hint });
    }
  }

  /** @throws FusetapError BUSY if the bus has another transport; UNSUPPORTED if its transport cannot do it */
  #fitToTransport(request: AttachRequest): AttachRequest {
    this.#checkWishes(request);
    if (this.#bus.transport === 'kernel') return request;
    if (request.passthrough === 'on') {
      throw cannotPassThrough(request.vdev ?? 'a vbd', 'transport fuse-native has no passthrough');
    }
    return { ...request, passthrough: 'off' };
  }

  #checkRunning(): void {
    const { name: bus } = this.#bus.place;
    if (this.#over || this.#ending.begun) throw endingError(bus);
    if (this.#bus.failed) {
      throw new FusetapError('FAILED', `bus ${bus} has failed`, {
        hint: `fusetap start --bus ${bus} mounts it again with its vbds, fusetap stop --bus ${bus} removes it`,
      });
    }
  }

  /** Gives the bus up. Without a server, and with the descriptors open here, its clients would hang for ever. */
  #fail(why: string): void {
    if (this.#over || this.#bus.failed) return;
    this.#bus.failed = true;
    logEvent({ event: 'failed', reason: why });
    this.#gaveUp = this.#cutOff();
    this.#record();
  }

  async #cutOff(): Promise<void> {
    const { place, server, mount, mountDev } = this.#bus;
    // no server ever answered on it: the start fails, and removes it
    if (mountDev === '') return;
    if (!(await abortConnection(place.path, mountDev))) {
      // when the server has exited, the keeper has the last descriptors
      await server.end();
      closeDevices(mount);
    }
    await unmount(place.path, mountDev);
    removeMountpoint(place);
  }

  /** @returns whether the bus is over: nothing is attached, and it is not persistent */
  endIfIdle(): boolean {
    // an ending that has begun sets `over` itself
    if (this.#persistent || this.#ending.begun || !this.#bus.vbds.isEmpty) return this.#over;
    if (!this.#over) this.#endedHow = 'nothing is attached any more';
    this.#over = true;
    return true;
  }

  /** Writes the files again by which others find this bus: somebody has removed them. */
  async rewrite(): Promise<void> {
    this.#record();
    await this.#bus.memories.rewrite();
  }

  #record(): void {
    const { place, server, vbds } = this.#bus;
    const record = {
      bus: place.name,
      path: place.path,
      interface: INTERFACE_VERSION,
      keeperPid: process.pid,
      serverPid: server.pid,
      vbds: vbds.all().map(({ vdev, mode, paused, source }) => {
        const { driver, imagePath, image, memory, graph } = source;
        const identity = image === null ? (source.kept?.claim.identity ?? null) : identityOf(image);
        const whole = isSimple(graph) ? {} : { disk: graph, identities: identitiesOf(source) };
        const below = [...source.memories].flatMap(([path, { id }]) => (path === '' ? [] : [id]));
        const memories = { memory: memory?.id ?? null, ...(below.length > 0 && { memoriesBelow: below }) };
        return { vdev, driver, mode, image: imagePath, identity, ...whole, ...memories, paused };
      }),
    };
    this.books.attempt('bus.json', () => writeBusRecord(place.stateDir, record));
  }
}

/** A client that wanted to attach starts a new bus when this one has ended. */
function endingError(bus: string): FusetapError {
  return new FusetapError('BUSY', `bus ${bus} is ending`, { operation: 'ending' });
}

/** Every file through which a vbd's ram image may be written. */
function withMemory(vbd: Vbd): CreditedVbd[] {
  return filesOf(vbd).map(({ nodeId, ledgerIndex }) => ({ nodeId, ledgerIndex, memory: vbd.source.memory }));
}

function logAttached({ vdev, mode, size, source }: Vbd): void {
  const { driver, imagePath } = source;
  logEvent({ event: 'attached', vdev, driver, image: imagePath ?? remoteUri(source), mode, size });
}

function withNotes(info: VbdInfo, notes: readonly string[]): AttachResult {
  return notes.length === 0 ? info : { ...info, notes: [...notes] };
}
