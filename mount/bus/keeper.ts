/**
 * The keeper: owns a bus. It holds everything that must outlive the server: the mount and its descriptors, the vbds with
 * their images, locks and memories, the ledger. It does no I/O on the data path and runs no driver code.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError, type Holder } from '../../drivers/errors.js';
import { readMounts } from '../../system/proc.js';
import { type KernelMount, mountKernel, requestResend, unmountKernel } from '../fuse/device.js';
import { totalThreads } from '../fuse/threads.js';
import { createLedger, Ledger, MAX_FILES } from '../ledger.js';
import { type AttachContext, attach, attachCommand } from './attach.js';
import { findVbdOfPid, writeBusRecord } from './bus-record.js';
import { awaitFree } from './detach.js';
import {
  type AttachRequest,
  type BusInfo,
  type BusState,
  type DetachedVbd,
  type DetachResult,
  INTERFACE_VERSION,
  type VbdInfo,
} from './interface.js';
import { Memories } from './memories.js';
import { imageChanged } from './open-image.js';
import { ServerProcess } from './server-process.js';
import { firstFreeXvd, parseSlot, type Slot } from './slots.js';
import { DEFAULT_SILENCE_LIMIT_MS, Supervisor } from './supervisor.js';
import type { Vbd } from './vbd.js';

export interface KeeperOptions {
  readonly bus: string;
  /** the mountpoint */
  readonly path: string;
  readonly stateDir: string;
  readonly runtimeDir: string;
  /** the lock on the bus */
  readonly lockFd: number;
  /** stays when its last vbd goes */
  readonly persistent: boolean;
}

export class Keeper {
  readonly #options: KeeperOptions;
  readonly #mount: KernelMount;
  readonly #mountDev: string;
  readonly #ledgerFd = createLedger();
  readonly #ledger = new Ledger(this.#ledgerFd);
  readonly #server: Supervisor;
  readonly #memories = new Memories();
  readonly #vbds = new Map<number, Vbd>();
  /** slots of attaches under way */
  readonly #reserved = new Set<number>();
  readonly #forgetWaiters = new Map<number, () => void>();
  readonly #freeLedgerIndexes = Array.from({ length: MAX_FILES }, (_, i) => MAX_FILES - 1 - i);
  #nextNodeId = 2;
  #persistent: boolean;
  #failed = false;
  #ending = false;

  /** Mounts a bus and starts its server; resolves when it answers. */
  static async start(options: KeeperOptions): Promise<Keeper> {
    const mount = mountKernel(options.path, totalThreads());
    try {
      const mounts = await readMounts('self');
      const own = mounts.findLast(({ mountpoint }) => mountpoint === options.path);
      if (own === undefined) throw new FusetapError('FAILED', `the mount on ${options.path} is gone already`);
      const keeper = new Keeper(options, mount, own.dev);
      await keeper.#server.start();
      keeper.#record();
      return keeper;
    } catch (error) {
      unmountKernel(options.path, true);
      throw error;
    }
  }

  private constructor(options: KeeperOptions, mount: KernelMount, mountDev: string) {
    this.#options = options;
    this.#persistent = options.persistent;
    this.#mount = mount;
    this.#mountDev = mountDev;
    const since = Date.now();
    this.#server = new Supervisor({
      launch: (events) =>
        new ServerProcess(
          {
            bus: options.bus,
            transport: 'kernel',
            mountpoint: options.path,
            keeperPid: process.pid,
            ledgerFd: this.#ledgerFd,
            lockFd: options.lockFd,
            deviceFds: mount.deviceFds,
            owner: { ...this.#owner(), sinceMs: since },
          },
          events,
        ),
      replay: async (server) => {
        for (const vbd of this.#vbds.values()) await server.request<'attach'>(attachCommand(vbd, true));
      },
      resend: () => requestResend(mount.deviceFds[0] as number),
      canResend: mount.negotiated.canResend,
      answered: () => this.#ledger.answered(),
      takeInFlight: () => this.#ledger.takeInFlight(),
      forgotten: (nodeId) => this.#forgetWaiters.get(nodeId)?.(),
      replaced: () => this.#record(),
      gaveUp: (why) => this.#fail(why),
      log,
      silenceLimitMs: Number(process.env.FUSETAP_SILENCE_LIMIT_MS ?? DEFAULT_SILENCE_LIMIT_MS),
    });
  }

  get ending(): boolean {
    return this.#ending;
  }

  /** Attaches, and resolves when the file can be opened. `signal`: the client went away. */
  async attach(request: AttachRequest, signal: AbortSignal): Promise<VbdInfo> {
    this.#checkRunning();
    const place = this.#findSlot(request.vdev);
    this.#reserved.add(place.slot);
    try {
      const vbd = await attach(this.#attachContext(), request, place, signal);
      this.#vbds.set(vbd.slot, vbd);
      this.#record();
      log(`attached ${vbd.vdev}: ${vbd.driver} ${JSON.stringify(vbd.imagePath)} mode ${vbd.mode}, ${vbd.size} bytes`);
      return await this.#vbdInfo(vbd);
    } finally {
      this.#reserved.delete(place.slot);
      this.#endIfIdle();
    }
  }

  /**
   * Detaches one vbd: nobody holds it, its data is durable, its file is gone.
   * @param options force: cut off who holds it; waitMs: how long to wait for them first
   * @throws FusetapError NOT_FOUND, or BUSY with the holders
   */
  async detach(vdev: string, options: { force: boolean; waitMs: number }): Promise<DetachResult> {
    const vbd = this.#find(vdev);
    const gone = await this.#detachVbd(vbd, options);
    this.#endIfIdle();
    return { vbds: [gone], ended: this.#ending };
  }

  /** Detaches all and ends the bus. Nothing is detached where one is busy and `force` is not set. */
  async stop(force: boolean): Promise<DetachResult> {
    const vbds = [...this.#vbds.values()];
    if (!force && !this.#failed) {
      for (const vbd of vbds) await this.#free(vbd, 0);
    }
    const gone: DetachedVbd[] = [];
    for (const vbd of vbds) gone.push(await this.#detachVbd(vbd, { force: true, waitMs: 0 }));
    this.#persistent = false;
    this.#endIfIdle();
    return { vbds: gone, ended: this.#ending };
  }

  /** Puts the code that is installed now under the running bus. */
  async upgrade(): Promise<{ bus: BusInfo; pauseMs: number }> {
    this.#checkRunning();
    const { pauseMs } = await this.#server.upgrade();
    this.#record();
    return { bus: await this.info(), pauseMs };
  }

  /** From now on the bus stays when its last vbd goes. */
  persist(): void {
    this.#checkRunning();
    this.#persistent = true;
  }

  async vbds(): Promise<VbdInfo[]> {
    const sorted = [...this.#vbds.values()].sort((a, b) => a.slot - b.slot);
    return await Promise.all(sorted.map((vbd) => this.#vbdInfo(vbd)));
  }

  async info(): Promise<BusInfo> {
    return {
      bus: this.#options.bus,
      path: this.#options.path,
      transport: 'kernel',
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
    unmountKernel(this.#options.path, this.#failed);
    await this.#server.end();
    for (const fd of this.#mount.deviceFds) closeSync(fd);
  }

  async #detachVbd(vbd: Vbd, { force, waitMs }: { force: boolean; waitMs: number }): Promise<DetachedVbd> {
    if (vbd.detaching) {
      throw new FusetapError('BUSY', `${vbd.vdev} on bus ${this.#options.bus} is being detached already`);
    }
    vbd.detaching = true;
    try {
      if (!force && !this.#failed) await this.#free(vbd, waitMs);
      const info = await this.#vbdInfo(vbd);
      const { flushError } = !this.#failed
        ? await this.#server.request<'detach'>({ op: 'detach', nodeId: vbd.nodeId })
        : { flushError: null };
      this.#release(vbd);
      log(`detached ${vbd.vdev}${flushError === null ? '' : `: ${flushError.message}`}`);
      return flushError === null ? info : { ...info, error: flushError };
    } finally {
      vbd.detaching = false;
    }
  }

  #free(vbd: Vbd, waitMs: number): Promise<void> {
    return awaitFree(
      {
        bus: this.#options.bus,
        setLeaving: async (nodeId, leaving) => {
          vbd.leaving = leaving;
          return (await this.#server.request<'leave'>({ op: 'leave', nodeId, leaving })).held;
        },
        mountpoint: this.#options.path,
        mountDev: this.#mountDev,
        opens: (nodeId) => this.#ledger.countHandles().get(nodeId) ?? 0,
        awaitForget: (nodeId, timeoutMs) => this.#awaitForget(nodeId, timeoutMs),
      },
      vbd,
      waitMs,
    );
  }

  #awaitForget(nodeId: number, timeoutMs: number): Promise<boolean> {
    return new Promise((resolve) => {
      const finish = (forgotten: boolean): void => {
        clearTimeout(timer);
        this.#forgetWaiters.delete(nodeId);
        resolve(forgotten);
      };
      const timer = setTimeout(() => finish(false), timeoutMs);
      this.#forgetWaiters.set(nodeId, () => finish(true));
    });
  }

  #release(vbd: Vbd): void {
    this.#vbds.delete(vbd.slot);
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
      mountpoint: this.#options.path,
      mountDev: this.#mountDev,
      newNode: () => {
        const ledgerIndex = this.#freeLedgerIndexes.pop();
        if (ledgerIndex === undefined) {
          throw new FusetapError('NO_SPACE', `bus ${this.#options.bus} is full: ${MAX_FILES} vbds`);
        }
        this.#ledger.resetFile(ledgerIndex, { mode: 0o600, ...this.#owner() }, Date.now());
        return { nodeId: this.#nextNodeId++, ledgerIndex };
      },
      freeNode: (ledgerIndex) => this.#freeLedgerIndexes.push(ledgerIndex),
      findVbdOfPid: (pid, identity) => findVbdOfPid(this.#options.runtimeDir, pid, identity),
    };
  }

  #checkRunning(): void {
    const { bus } = this.#options;
    if (this.#ending) throw new FusetapError('BUSY', `bus ${bus} is ending`, { operation: 'ending' });
    if (this.#failed) {
      throw new FusetapError('FAILED', `bus ${bus} has failed`, { hint: `fusetap stop --bus ${bus}, then start anew` });
    }
  }

  #findSlot(vdev: string | null): Slot {
    const taken = new Set([...this.#vbds.keys(), ...this.#reserved]);
    const place = parseSlot(vdev ?? firstFreeXvd(taken));
    if (!taken.has(place.slot)) return place;
    const { bus } = this.#options;
    const holder: Holder = { bus, vdev: this.#vbds.get(place.slot)?.vdev ?? place.vdev };
    throw new FusetapError('BUSY', `slot ${place.slot} (${holder.vdev}) of bus ${bus} is taken`, {
      hint: `choose another vdev, or fusetap detach --bus ${bus} ${holder.vdev}`,
      holders: [holder],
    });
  }

  #find(vdev: string): Vbd {
    const vbd = this.#vbds.get(parseSlot(vdev).slot);
    if (vbd !== undefined) return vbd;
    const { bus } = this.#options;
    throw new FusetapError('NOT_FOUND', `no vbd ${vdev} on bus ${bus}`, { hint: `fusetap ls --bus ${bus}` });
  }

  async #vbdInfo(vbd: Vbd): Promise<VbdInfo> {
    const { bus, path } = this.#options;
    return {
      bus,
      vdev: vbd.vdev,
      slot: vbd.slot,
      path: join(path, vbd.vdev),
      driver: vbd.driver,
      image: vbd.imagePath,
      mode: vbd.mode,
      size: vbd.size,
      state: this.#state(),
      opens: this.#ledger.countHandles().get(vbd.nodeId) ?? 0,
      transport: 'kernel',
      passthrough: false,
      share: null,
      partitions: null,
      keeperPid: process.pid,
      serverPid: this.#serverPid(),
      restarts: this.#server.restarts,
      changedOutside: vbd.image !== null && (await imageChanged(vbd.image)) !== null,
    };
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
    log(`bus ${this.#options.bus} failed: ${why}; clients get ECONNABORTED, then ENOTCONN`);
    unmountKernel(this.#options.path, true);
    this.#record();
  }

  #endIfIdle(): void {
    if (this.#persistent || this.#vbds.size > 0 || this.#reserved.size > 0) return;
    this.#ending = true;
  }

  #record(): void {
    writeBusRecord(this.#options.stateDir, {
      bus: this.#options.bus,
      path: this.#options.path,
      interface: INTERFACE_VERSION,
      keeperPid: process.pid,
      serverPid: this.#serverPid(),
      vbds: [...this.#vbds.values()].map(({ vdev, driver, mode, imagePath, image }) => {
        const identity = image && `${image.dev}:${image.ino}`;
        return { vdev, driver, mode, image: imagePath, identity };
      }),
    });
  }
}

/** One line an event, into the log of the bus. */
function log(text: string): void {
  console.log(`${new Date().toISOString()} ${text}`);
}
