/**
 * The keeper: owns a bus. It holds everything that must outlive the server: the mount and its descriptors, the vbds with
 * their images, locks and memories, the ledger. It does no I/O on the data path and runs no driver code.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { E, setIoFlusher } from '../../system/libc.js';
import { readMounts } from '../../system/proc.js';
import { cannotPassThrough, registerBacking, unregisterBacking } from '../fuse/backing.js';
import { type KernelMount, mountKernel, requestResend, unmountKernel } from '../fuse/device.js';
import { totalThreads } from '../fuse/threads.js';
import { lookUpInode } from '../fuse-native/look-up.js';
import { createLedger, Ledger, MAX_FILES } from '../ledger.js';
import { createStats, readStats, resetStats } from '../stats.js';
import { type AttachContext, attach, attachCommand, showCommand } from './attach.js';
import { type CopyWatcher, recopyMemory } from './attach-memory.js';
import type { BusControl, DetachChoice } from './bus-control.js';
import { findVbdOfPid, writeBusRecord } from './bus-record.js';
import { awaitFree, lookUp } from './detach.js';
import { ForgetWaiters } from './forget-waiters.js';
import { holdOtherWriters, type LetGo } from './hold-writers.js';
import {
  type AttachRequest,
  type AttachResult,
  type BusInfo,
  type BusState,
  type DetachedVbd,
  type DetachResult,
  INTERFACE_VERSION,
  type MemoryInfo,
  type SaveRequest,
  type SaveResult,
  type TransportName,
  type UpgradeResult,
  type VbdInfo,
  type VbdStats,
} from './interface.js';
import type { VbdFacts } from './ipc.js';
import { logEvent } from './log.js';
import { Memories } from './memories.js';
import { MemoryCredit } from './memory-credit.js';
import { unmountBus } from './mountpoint.js';
import { imageChanged } from './open-image.js';
import { inPercent } from './progress.js';
import { describeMemory } from './ram-images.js';
import type { BusPlace } from './runtime-dir.js';
import { saveTo } from './save.js';
import { ServerProcess } from './server-process.js';
import { firstFreeXvd, parseSlot, type Slot } from './slots.js';
import { DEFAULT_SILENCE_LIMIT_MS, Supervisor } from './supervisor.js';
import type { Vbd } from './vbd.js';

export interface KeeperOptions {
  readonly place: BusPlace;
  /** the lock on the bus */
  readonly lockFd: number;
  /** stays when its last vbd goes */
  readonly persistent: boolean;
  /** the same for all its vbds, for as long as the bus lives */
  readonly transport: TransportName;
}

export class Keeper implements BusControl {
  readonly #options: KeeperOptions;
  readonly #mount: KernelMount;
  /** known once the server serves */
  #mountDev = '';
  readonly #ledgerFd = createLedger();
  readonly #ledger = new Ledger(this.#ledgerFd);
  readonly #statsFd = createStats();
  readonly #server: Supervisor;
  readonly #memories: Memories;
  readonly #credit: MemoryCredit;
  readonly #vbds = new Map<number, Vbd>();
  /** what each server was told before it began */
  readonly #told = new WeakMap<ServerProcess, Map<Vbd, Told>>();
  /** slots of attaches under way */
  readonly #reserved = new Set<number>();
  readonly #forgets = new ForgetWaiters();
  readonly #freeLedgerIndexes = Array.from({ length: MAX_FILES }, (_, i) => MAX_FILES - 1 - i);
  #nextNodeId = 2;
  #persistent: boolean;
  #failed = false;
  #ending = false;

  /** Mounts a bus and starts its server; resolves when it answers. */
  static async start(options: KeeperOptions): Promise<Keeper> {
    const { path } = options.place;
    const mount = options.transport === 'kernel' ? mountKernel(path, totalThreads()) : mountedByServer(path);
    try {
      const keeper = new Keeper(options, mount);
      await keeper.#server.start();
      const own = (await readMounts('self')).findLast(({ mountpoint }) => mountpoint === path);
      if (own === undefined) throw new FusetapError('FAILED', `the mount on ${path} is gone already`);
      keeper.#mountDev = own.dev;
      keeper.#record();
      const [keeperPid, serverPid] = [process.pid, keeper.#serverPid()];
      logEvent({ event: 'started', path, keeperPid, serverPid });
      return keeper;
    } catch (error) {
      await unmountBus(path);
      throw error;
    }
  }

  private constructor(options: KeeperOptions, mount: KernelMount) {
    this.#options = options;
    this.#persistent = options.persistent;
    this.#mount = mount;
    this.#memories = new Memories(options.place.runtimeDir, options.place.name);
    this.#credit = new MemoryCredit(this.#ledger, this.#memories, () => this.#vbds.values());
    const since = Date.now();
    // the server may be what write-back waits for: its allocations must not wait for write-back; children inherit it
    setIoFlusher();
    this.#server = new Supervisor({
      launch: (events) =>
        new ServerProcess(
          {
            place: options.place,
            transport: options.transport,
            keeperPid: process.pid,
            ledgerFd: this.#ledgerFd,
            statsFd: this.#statsFd,
            lockFd: options.lockFd,
            deviceFds: mount.deviceFds,
            owner: { ...this.#owner(), sinceMs: since },
          },
          events,
        ),
      replay: (server) => this.#replay(server),
      resend: () => requestResend(this.#device()),
      cannotReplace: reasonNotToReplace(options.transport, mount),
      answered: () => this.#ledger.answered(),
      takeInFlight: () => this.#ledger.takeInFlight(),
      forgotten: (nodeId) => this.#forgets.tell(nodeId),
      memoryWanted: (nodeId) => this.#credit.wanted(nodeId),
      replaced: () => this.#record(),
      gaveUp: (why) => this.#fail(why),
      log: logEvent,
      silenceLimitMs: Number(process.env.FUSETAP_SILENCE_LIMIT_MS ?? DEFAULT_SILENCE_LIMIT_MS),
    });
  }

  get ending(): boolean {
    return this.#ending;
  }

  /** Tells a server of all vbds; a second time, of what has changed since the first. */
  async #replay(server: ServerProcess): Promise<void> {
    const told = this.#told.get(server) ?? new Map<Vbd, Told>();
    this.#told.set(server, told);
    for (const [vbd, was] of told) {
      if (this.#vbds.get(vbd.slot) === vbd && isAsTold(vbd, was)) continue;
      told.delete(vbd);
      await server.request<'detach'>({ op: 'detach', nodeId: vbd.nodeId });
    }
    for (const vbd of this.#vbds.values()) {
      if (told.has(vbd)) continue;
      told.set(vbd, { leaving: vbd.leaving, paused: vbd.paused, memory: vbd.memory });
      await server.request<'attach'>(attachCommand(vbd, this.#memories));
      await server.request<'show'>(showCommand(vbd, this.#facts(vbd), true));
    }
  }

  /** Attaches, and resolves when the file can be opened. */
  async attach(request: AttachRequest, watcher: CopyWatcher): Promise<AttachResult> {
    this.#checkRunning();
    const place = this.#findSlot(request.vdev);
    this.#reserved.add(place.slot);
    try {
      const told = this.#tellCopy(request.image, watcher);
      const { vbd, notes } = await attach(this.#attachContext(), this.#fitToTransport(request), place, told);
      this.#vbds.set(vbd.slot, vbd);
      this.#record();
      logAttached(vbd);
      const info = await this.#vbdInfo(vbd);
      return notes.length === 0 ? info : { ...info, notes: [...notes] };
    } finally {
      this.#reserved.delete(place.slot);
      this.endIfIdle();
    }
  }

  /**
   * Detaches one vbd: nobody holds it, its data is durable, its file is gone.
   * @param options force: cut off who holds it; waitMs: how long to wait for them first
   * @throws FusetapError NOT_FOUND, or BUSY with the holders
   */
  async detach(vdev: string, choice: DetachChoice): Promise<DetachResult> {
    const vbd = this.#find(vdev);
    const gone = await this.#detachVbd(vbd, choice);
    this.endIfIdle();
    return { vbds: [gone], ended: this.#ending };
  }

  /** Detaches all and ends the bus. Nothing is detached where one is busy and `force` is not set. */
  async stop(force: boolean): Promise<DetachResult> {
    const vbds = [...this.#vbds.values()];
    if (!force && !this.#failed) await this.#freeAll(vbds);
    const gone: DetachedVbd[] = [];
    for (const vbd of vbds) gone.push(await this.#detachVbd(vbd, { force: true, waitMs: 0 }));
    this.#persistent = false;
    this.endIfIdle();
    return { vbds: gone, ended: this.#ending };
  }

  /** Puts the code that is installed now under the running bus. */
  async upgrade(): Promise<UpgradeResult> {
    this.#checkRunning();
    const { pauseMs } = await this.#server.upgrade();
    this.#record();
    return { bus: await this.info(), pauseMs };
  }

  /** From now on the bus stays when its last vbd goes. */
  persist(transport?: TransportName): void {
    this.#checkRunning();
    this.#checkTransport(transport);
    this.#persistent = true;
  }

  async vbds(): Promise<VbdInfo[]> {
    const sorted = [...this.#vbds.values()].sort((a, b) => a.slot - b.slot);
    return await Promise.all(sorted.map((vbd) => this.#vbdInfo(vbd)));
  }

  /** What requests did, of each vbd since its attach. */
  stats(): VbdStats[] {
    const sorted = [...this.#vbds.values()].sort((a, b) => a.slot - b.slot);
    return sorted.map((vbd) => {
      const { bus, vdev, passthrough } = this.#facts(vbd);
      return { bus, vdev, passthrough, ...readStats(this.#statsFd, vbd.ledgerIndex) };
    });
  }

  async info(): Promise<BusInfo> {
    return {
      bus: this.#options.place.name,
      path: this.#options.place.path,
      transport: this.#options.transport,
      keeperPid: process.pid,
      serverPid: this.#serverPid(),
      restarts: this.#server.restarts,
      state: this.#state(),
      interface: INTERFACE_VERSION,
      vbds: await this.vbds(),
    };
  }

  /** Takes mount and server away. To be called once the bus is `ending` and its clients have their answers. */
  async end(): Promise<void> {
    unmountKernel(this.#options.place.path, this.#failed);
    await this.#server.end();
    for (const fd of this.#mount.deviceFds) closeSync(fd);
    await this.#memories.end().catch((error: unknown) => console.error(error));
  }

  async #detachVbd(vbd: Vbd, { force, waitMs }: DetachChoice): Promise<DetachedVbd> {
    if (vbd.detaching) {
      throw new FusetapError('BUSY', `${vbd.vdev} on bus ${this.#options.place.name} is being detached already`);
    }
    this.#refuseCopying(vbd);
    vbd.detaching = true;
    try {
      if (!force && !this.#failed) await this.#free(vbd, waitMs);
      const info = await this.#vbdInfo(vbd);
      if (force && !this.#failed && vbd.backingId !== null) await this.#cutOff(vbd);
      const { flushError } = !this.#failed
        ? await this.#server.request<'detach'>({ op: 'detach', nodeId: vbd.nodeId })
        : { flushError: null };
      this.#release(vbd);
      logEvent({ event: 'detached', vdev: vbd.vdev, error: flushError?.message ?? null });
      return flushError === null ? info : { ...info, error: flushError };
    } finally {
      vbd.detaching = false;
    }
  }

  /** All, or none: where one is held, the others can be opened again. */
  async #freeAll(vbds: readonly Vbd[]): Promise<void> {
    const freed: Vbd[] = [];
    try {
      for (const vbd of vbds) {
        await this.#free(vbd, 0);
        freed.push(vbd);
      }
    } catch (error) {
      for (const vbd of freed) await this.#show(vbd);
      throw error;
    }
  }

  #free(vbd: Vbd, waitMs: number): Promise<void> {
    return awaitFree(
      {
        bus: this.#options.place.name,
        setLeaving: async (nodeId, leaving) => {
          vbd.leaving = leaving;
          return (await this.#server.request<'leave'>({ op: 'leave', nodeId, leaving })).held;
        },
        mountpoint: this.#options.place.path,
        mountDev: this.#mountDev,
        ...(this.#options.transport === 'fuse-native' && { inodeOf: lookUpInode }),
        opens: (nodeId) => this.#ledger.countHandles().get(nodeId) ?? 0,
        awaitForget: (nodeId, timeoutMs) => this.#forgets.wait(nodeId, timeoutMs),
      },
      vbd,
      waitMs,
    );
  }

  /** Makes the kernel give up the I/O that it does by itself: it forgets a node that has become something else. */
  async #cutOff(vbd: Vbd): Promise<void> {
    await this.#server.request<'poison'>({ op: 'poison', nodeId: vbd.nodeId });
    await lookUp(join(this.#options.place.path, vbd.vdev));
  }

  /** Holds the I/O of a vbd: it waits, without an error, until `resume`. */
  async pause(vdev: string): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#find(vdev);
    if (vbd.paused) return await this.#vbdInfo(vbd);
    if (vbd.backingId === null) {
      vbd.paused = true;
      await this.#server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId });
    } else {
      await this.#pausePassedThrough(vbd);
    }
    this.#record();
    logEvent({ event: 'paused', vdev: vbd.vdev });
    return await this.#vbdInfo(vbd);
  }

  /** What the kernel does by itself cannot be held, so nobody may have it open; then opens are held. */
  async #pausePassedThrough(vbd: Vbd): Promise<void> {
    await this.#free(vbd, 0).catch((error: unknown) => {
      if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
      throw new FusetapError('BUSY', `${error.message}; it is passed through, so its I/O cannot be held`, {
        hint: 'close it there, or attach it with --passthrough off',
        holders: error.holders,
      });
    });
    vbd.paused = true;
    await this.#server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId });
    await this.#show(vbd);
  }

  /** Lets the I/O of a paused vbd go on. */
  async resume(vdev: string): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#find(vdev);
    this.#refuseCopying(vbd);
    vbd.paused = false;
    await this.#server.request<'release'>({ op: 'release', nodeId: vbd.nodeId });
    this.#record();
    logEvent({ event: 'resumed', vdev: vbd.vdev });
    return await this.#vbdInfo(vbd);
  }

  /** Makes a file a consistent copy of a vbd: all who may write to its bytes are held meanwhile. */
  async save(vdev: string, { path, force }: SaveRequest, watcher: CopyWatcher): Promise<SaveResult> {
    this.#checkRunning();
    const vbd = this.#find(vdev);
    const { nodeId, memory } = vbd;
    const { signal, progress } = this.#tellCopy(vbd.imagePath, watcher);
    const saved = await this.#withWritersHeld(vbd, () =>
      saveTo(path, force, {
        ownBus: { ownDev: this.#mountDev, mountpoint: this.#options.place.path },
        describePid: (pid, image) => findVbdOfPid(this.#options.place.runtimeDir, pid, `${image.dev}:${image.ino}`),
        copy: async (targetFd) => {
          signal.throwIfAborted();
          await this.#server.request<'save'>({ op: 'save', nodeId, targetFd }, { signal, progress });
          signal.throwIfAborted();
        },
        replace: async (oldIdentity, place) => {
          if (memory === null) place();
          else await this.#memories.moveIdentity(memory, oldIdentity, place);
        },
      }),
    );
    logEvent({ event: 'saved', vdev: vbd.vdev, path: saved });
    return { path: saved, size: vbd.size };
  }

  async #withWritersHeld<Result>(vbd: Vbd, work: () => Promise<Result>): Promise<Result> {
    this.#refuseCopying(vbd);
    const { runtimeDir, name } = this.#options.place;
    const sharing = [...this.#vbds.values()].filter(({ memory }) => memory !== null && memory === vbd.memory);
    const writers = (vbd.memory === null ? [vbd] : sharing).filter(({ mode, paused }) => mode !== 'r' && !paused);
    vbd.copying = true;
    const held: Vbd[] = [];
    let letOthersGo: LetGo = async () => {};
    try {
      for (const writer of writers) {
        held.push(writer);
        await this.pause(writer.vdev);
      }
      if (vbd.memory !== null) letOthersGo = await holdOtherWriters(runtimeDir, name, vbd.memory.id);
      return await work();
    } finally {
      vbd.copying = false;
      for (const { vdev } of held) await this.resume(vdev);
      await letOthersGo();
    }
  }

  /** Copies the image of a ram vbd afresh; the old copy is kept until the new one is whole. */
  async reset(vdev: string, watcher: CopyWatcher): Promise<VbdInfo> {
    this.#checkRunning();
    const vbd = this.#find(vdev);
    const { memory, driver, options, mode, filters, slot, imagePath } = vbd;
    if (memory === null) throw notRam(vbd);
    this.#refuseCopying(vbd);
    vbd.copying = true;
    this.#reserved.add(slot);
    const told = this.#tellCopy(memory.image, watcher);
    try {
      await this.#free(vbd, 0);
      const context = this.#attachContext();
      const fresh = await recopyMemory(context, { driver, options, image: memory.image }, memory, told);
      try {
        await this.#server.request<'detach'>({ op: 'detach', nodeId: vbd.nodeId });
        this.#release(vbd);
        const share = this.#memories.shareOf(fresh);
        const passthrough = vbd.backingId === null ? 'off' : 'auto';
        const request = { driver, image: imagePath, vdev, mode, options, filters: [...filters], share, passthrough };
        const again = await attach(context, { ...request, passthrough }, { slot, vdev: vbd.vdev }, told);
        this.#vbds.set(slot, again.vbd);
      } finally {
        this.#memories.release(fresh);
      }
      this.#record();
      logEvent({ event: 'reset', vdev: vbd.vdev });
      return await this.#vbdInfo(this.#find(vdev));
    } catch (error) {
      if (this.#vbds.get(slot) === vbd && vbd.leaving) await this.#show(vbd);
      throw error;
    } finally {
      vbd.copying = false;
      this.#reserved.delete(slot);
      this.endIfIdle();
    }
  }

  async #show(vbd: Vbd): Promise<void> {
    vbd.leaving = false;
    await this.#server.request<'leave'>({ op: 'leave', nodeId: vbd.nodeId, leaving: false });
  }

  memory(): MemoryInfo {
    return describeMemory(this.#options.place.runtimeDir);
  }

  #refuseCopying({ vdev, copying }: Vbd): void {
    if (!copying) return;
    throw new FusetapError('BUSY', `${vdev} on bus ${this.#options.place.name} is being copied`, {
      hint: 'wait until the save or reset has ended',
    });
  }

  /** A copy that takes long is told of in the log too. */
  #tellCopy(image: string | null, { signal, progress }: CopyWatcher): CopyWatcher {
    const toLog = inPercent((percent) => logEvent({ event: 'copying', image, percent }));
    return {
      signal,
      progress: (doneBytes, totalBytes) => {
        toLog(doneBytes, totalBytes);
        progress(doneBytes, totalBytes);
      },
    };
  }

  #release(vbd: Vbd): void {
    this.#vbds.delete(vbd.slot);
    if (vbd.backingId !== null) unregisterBacking(this.#device(), vbd.backingId);
    vbd.claim?.release();
    if (vbd.image !== null) closeSync(vbd.image.fd);
    if (vbd.memory !== null) this.#memories.release(vbd.memory);
    this.#freeLedgerIndexes.push(vbd.ledgerIndex);
    this.#record();
  }

  #attachContext(): AttachContext {
    return {
      server: this.#server,
      memories: this.#memories,
      mountpoint: this.#options.place.path,
      mountDev: this.#mountDev,
      newNode: () => {
        const ledgerIndex = this.#freeLedgerIndexes.pop();
        if (ledgerIndex === undefined) {
          throw new FusetapError('NO_SPACE', `bus ${this.#options.place.name} is full: ${MAX_FILES} vbds`);
        }
        resetStats(this.#statsFd, ledgerIndex);
        this.#ledger.resetFile(ledgerIndex, { mode: 0o600, ...this.#owner() }, Date.now());
        return { nodeId: this.#nextNodeId++, ledgerIndex };
      },
      register: (fd) => (this.#mount.negotiated.canPassThrough ? registerBacking(this.#device(), fd) : -E.EOPNOTSUPP),
      unregister: (id) => unregisterBacking(this.#device(), id),
      facts: (vbd) => this.#facts(vbd),
      freeNode: (ledgerIndex) => this.#freeLedgerIndexes.push(ledgerIndex),
      findVbdOfPid: (pid, identity) => findVbdOfPid(this.#options.place.runtimeDir, pid, identity),
    };
  }

  #checkTransport(asked: TransportName | undefined): void {
    const { transport, place } = this.#options;
    if (asked === undefined || asked === transport) return;
    throw new FusetapError('BUSY', `bus ${place.name} runs on transport ${transport}, not ${asked}`, {
      hint: `choose another bus with --bus, or fusetap stop --bus ${place.name} first`,
    });
  }

  /** @throws FusetapError BUSY where the bus has another transport, UNSUPPORTED where its transport cannot */
  #fitToTransport(request: AttachRequest): AttachRequest {
    this.#checkTransport(request.transport);
    if (this.#options.transport === 'kernel') return request;
    if (request.passthrough === 'on') {
      throw cannotPassThrough(request.vdev ?? 'a vbd', 'transport fuse-native has no passthrough');
    }
    return { ...request, passthrough: 'off' };
  }

  #checkRunning(): void {
    const { name: bus } = this.#options.place;
    if (this.#ending) throw new FusetapError('BUSY', `bus ${bus} is ending`, { operation: 'ending' });
    if (this.#failed) {
      throw new FusetapError('FAILED', `bus ${bus} has failed`, { hint: `fusetap stop --bus ${bus}, then start anew` });
    }
  }

  #findSlot(vdev: string | null): Slot {
    const taken = new Set([...this.#vbds.keys(), ...this.#reserved]);
    const place = parseSlot(vdev ?? firstFreeXvd(taken));
    if (!taken.has(place.slot)) return place;
    const { name: bus } = this.#options.place;
    const holder: Holder = { bus, vdev: this.#vbds.get(place.slot)?.vdev ?? place.vdev };
    throw new FusetapError('BUSY', `slot ${place.slot} (${holder.vdev}) of bus ${bus} is taken`, {
      hint: `choose another vdev, or fusetap detach --bus ${bus} ${holder.vdev}`,
      holders: [holder],
    });
  }

  #find(vdev: string): Vbd {
    const vbd = this.#vbds.get(parseSlot(vdev).slot);
    if (vbd !== undefined) return vbd;
    const { name: bus } = this.#options.place;
    throw new FusetapError('NOT_FOUND', `no vbd ${vdev} on bus ${bus}`, { hint: `fusetap ls --bus ${bus}` });
  }

  #facts(vbd: Vbd): VbdFacts {
    const { name, path } = this.#options.place;
    return {
      bus: name,
      vdev: vbd.vdev,
      slot: vbd.slot,
      path: join(path, vbd.vdev),
      driver: vbd.driver,
      image: vbd.imagePath,
      mode: vbd.mode,
      size: vbd.size,
      transport: this.#options.transport,
      passthrough: vbd.backingId !== null,
      share: vbd.memory && this.#memories.shareOf(vbd.memory),
      partitions: null,
    };
  }

  async #isChangedOutside(vbd: Vbd): Promise<boolean> {
    try {
      return vbd.image !== null && (await imageChanged(vbd.image)) !== null;
    } catch (error) {
      // detached while it was looked at: its descriptor is closed
      if (this.#vbds.get(vbd.slot) !== vbd) return false;
      throw error;
    }
  }

  async #vbdInfo(vbd: Vbd): Promise<VbdInfo> {
    const state = this.#state();
    return {
      ...this.#facts(vbd),
      state: vbd.paused && state === 'running' ? 'paused' : state,
      opens: this.#ledger.countHandles().get(vbd.nodeId) ?? 0,
      keeperPid: process.pid,
      serverPid: this.#serverPid(),
      restarts: this.#server.restarts,
      changedOutside: await this.#isChangedOutside(vbd),
    };
  }

  #device(): number {
    return this.#mount.deviceFds[0] as number;
  }

  #serverPid(): number | null {
    return this.#server.pid;
  }

  #state(): BusState {
    if (this.#failed) return 'failed';
    return this.#server.state === 'running' ? 'running' : 'restarting';
  }

  #owner(): { uid: number; gid: number } {
    return { uid: process.getuid?.() ?? 0, gid: process.getgid?.() ?? 0 };
  }

  /** Gives the bus up: with no server, and the descriptors in our hands, its clients would hang for ever. */
  #fail(why: string): void {
    if (this.#ending || this.#failed) return;
    this.#failed = true;
    logEvent({ event: 'failed', reason: why });
    unmountKernel(this.#options.place.path, true);
    this.#record();
  }

  /** @returns whether the bus is ending: nothing is attached, and nobody asked it to stay */
  endIfIdle(): boolean {
    if (this.#persistent || this.#vbds.size > 0 || this.#reserved.size > 0) return this.#ending;
    this.#ending = true;
    return true;
  }

  #record(): void {
    writeBusRecord(this.#options.place.stateDir, {
      bus: this.#options.place.name,
      path: this.#options.place.path,
      interface: INTERFACE_VERSION,
      keeperPid: process.pid,
      serverPid: this.#serverPid(),
      vbds: [...this.#vbds.values()].map(({ vdev, driver, mode, imagePath, image, memory, paused }) => {
        const identity = image && `${image.dev}:${image.ino}`;
        return { vdev, driver, mode, image: imagePath, identity, memory: memory?.id ?? null, paused };
      }),
    });
  }
}

/** What the keeper has of a mount that the server makes: nothing. */
function mountedByServer(mountpoint: string): KernelMount {
  return { mountpoint, deviceFds: [], negotiated: { minor: 0, canResend: false, canPassThrough: false } };
}

function reasonNotToReplace(transport: TransportName, { negotiated }: KernelMount): string | null {
  if (transport === 'fuse-native') return 'with transport fuse-native the mount goes with it';
  return negotiated.canResend ? null : 'this kernel cannot send its requests again (Linux 6.9 can)';
}

function notRam({ vdev, driver }: Vbd): FusetapError {
  return new FusetapError('UNSUPPORTED', `${vdev} has no copy that could be made afresh: its driver is ${driver}`, {
    hint: 'reset is for ram vbds',
  });
}

function logAttached({ vdev, driver, imagePath, mode, size }: Vbd): void {
  logEvent({ event: 'attached', vdev, driver, image: imagePath, mode, size });
}

/** What of a vbd may change between two servers. */
type Told = Pick<Vbd, 'leaving' | 'paused' | 'memory'>;

function isAsTold(vbd: Vbd, was: Told): boolean {
  return vbd.leaving === was.leaving && vbd.paused === was.paused && vbd.memory === was.memory;
}
