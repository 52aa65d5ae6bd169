/**
 * A server without its keeper. It serves on: it has the devices, the images, their locks and memories. But nothing can be
 * attached, nothing is replaced when it dies, and nobody adopts it; it can be shown, detached from, and stopped.
 */
import { FusetapError } from '../../drivers/errors.js';
import { readMounts } from '../../system/proc.js';
import { unmount } from '../fuse/unmount.js';
import { lookUpInode } from '../fuse-native/look-up.js';
import type { Ledger } from '../ledger.js';
import type { BusControl, DetachChoice, Patience } from './bus-control.js';
import { listenOn, removeBusFiles } from './bus-files.js';
import { writeBusRecord } from './bus-record.js';
import { createControl } from './control.js';
import { awaitFree, freeAll, type LeavingVbd } from './detach.js';
import { Ending } from './ending.js';
import type { ForgetWaiters } from './forget-waiters.js';
import {
  type BusInfo,
  type DetachedVbd,
  type DetachResult,
  INTERFACE_VERSION,
  type MemoryInfo,
  type TransportName,
  type VbdInfo,
} from './interface.js';
import type { VbdFacts } from './ipc.js';
import { EndingLimits } from './limit.js';
import { logEvent } from './log.js';
import { describeMemory } from './ram-images.js';
import { refusePartition } from './refuse-partition.js';
import type { BusPlace } from './runtime-dir.js';
import type { Server } from './server.js';
import { parseSlot } from './slots.js';
import { withOpens } from './vbd-report.js';
import { heldFiles, NOBODY, type WrittenBack, writeBackAbove } from './write-back.js';

export interface OrphanContext {
  readonly place: BusPlace;
  readonly transport: TransportName;
  readonly allowOther: boolean;
  readonly server: Server;
  readonly ledger: Ledger;
  readonly forgets: ForgetWaiters;
  /** from now on the mount goes by our own hand */
  ends(): void;
  /** ends this process */
  die(): void;
}

interface OrphanVbd {
  readonly nodeId: number;
  readonly facts: VbdFacts;
}

export class Orphan implements BusControl {
  readonly #context: OrphanContext;
  readonly #mountDev: string;
  readonly #ending: Ending<OrphanVbd>;
  #over = false;

  private constructor(context: OrphanContext, mountDev: string) {
    this.#context = context;
    this.#mountDev = mountDev;
    this.#ending = new Ending<OrphanVbd>({
      giveUpActs: async () => {},
      vbds: () => context.server.shown(),
      takeAway: (vbd, limits) => this.#takeAway(vbd, limits),
      describe: (vbd) => this.#vbdInfo(vbd),
    });
  }

  /** Takes over what can be taken over, and listens on server.sock. */
  static async begin(context: OrphanContext): Promise<void> {
    const { place, server } = context;
    const mounts = await readMounts('self');
    const own = mounts.findLast(({ mountpoint }) => mountpoint === place.path);
    const orphan = new Orphan(context, own?.dev ?? '');
    await server.publishMemories(place.runtimeDir);
    // there is nobody left who could resume them
    for (const { nodeId } of server.shown()) await server.release(nodeId);
    let ended = false;
    const control = createControl(orphan, () => {
      if (!ended) void orphan.#end();
      ended = true;
    });
    await listenOn(control, place.stateDir, 'server.sock');
    orphan.#record();
    logEvent({ event: 'orphaned', serverPid: process.pid });
  }

  get over(): boolean {
    return this.#over;
  }

  async info(): Promise<BusInfo> {
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
      interface: INTERFACE_VERSION,
      vbds: await this.vbds(),
    };
  }

  async vbds(): Promise<VbdInfo[]> {
    return this.#context.server.shown().map((vbd) => this.#vbdInfo(vbd));
  }

  stats(): never {
    throw this.#refusal();
  }

  attach(): Promise<never> {
    throw this.#refusal();
  }

  save(): Promise<never> {
    throw this.#refusal();
  }

  reset(): Promise<never> {
    throw this.#refusal();
  }

  memory(): MemoryInfo {
    return describeMemory(this.#context.place.runtimeDir);
  }

  pause(): Promise<never> {
    throw this.#refusal();
  }

  resume(): Promise<never> {
    throw this.#refusal();
  }

  swap(): Promise<never> {
    throw this.#refusal();
  }

  upgrade(): Promise<never> {
    throw this.#refusal();
  }

  persist(): never {
    throw this.#refusal();
  }

  async detach(vdev: string, choice: DetachChoice): Promise<DetachResult> {
    const { slot } = parseSlot(vdev);
    const { server, place } = this.#context;
    const vbds = server.shown();
    const vbd = vbds.find(({ facts }) => facts.slot === slot);
    const disk = vbds.find(({ facts }) => facts.partitions?.some((partition) => partition.slot === slot));
    if (disk !== undefined) throw refusePartition(vdev, disk.facts.vdev, `bus ${place.name}`);
    if (vbd === undefined) throw new FusetapError('NOT_FOUND', `no vbd ${vdev} on bus ${place.name}`);
    const gone = await this.#detachVbd(vbd, choice);
    this.#over = server.shown().length === 0;
    return { vbds: [gone], ended: this.#over };
  }

  async stop(force: boolean, { waitMs }: Patience = { waitMs: 0 }): Promise<DetachResult> {
    const vbds = this.#context.server.shown();
    const mustBeFree = !force && !this.#ending.begun;
    const deadline = performance.now() + waitMs;
    if (mustBeFree) {
      await freeAll(vbds, {
        free: (vbd) => this.#free(vbd, Math.max(0, deadline - performance.now())),
        show: (vbd) => this.#show(vbd),
      });
    }
    const gone = await this.#ending.run(force);
    this.#over = true;
    return { vbds: gone, ended: true };
  }

  async #detachVbd(vbd: OrphanVbd, { force, waitMs }: DetachChoice): Promise<DetachedVbd> {
    if (!force) await this.#free(vbd, waitMs);
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
    const { place, ledger, transport } = this.#context;
    const opens = ledger.countHandles();
    const held = this.#filesOf(vbd).filter(({ nodeId }) => opens.has(nodeId));
    const known = { place, mountDev: this.#mountDev, transport };
    const readOnly = vbd.facts.mode === 'r';
    return await writeBackAbove(vbd.facts.vdev, await heldFiles(known, held), { limit: writeBack, readOnly });
  }

  /** Its partitions first, as the keeper does it. */
  #filesOf({ nodeId, facts }: OrphanVbd): LeavingVbd[] {
    const partitions = this.#context.server.partitionsOf(nodeId);
    return [...partitions.map(({ name, nodeId }) => ({ vdev: name, nodeId })), { vdev: facts.vdev, nodeId }];
  }

  async #free(vbd: OrphanVbd, waitMs: number): Promise<void> {
    const deadline = Date.now() + waitMs;
    await freeAll(this.#filesOf(vbd), {
      free: (file) => this.#freeFile(file, Math.max(0, deadline - Date.now())),
      show: (file) => this.#showFile(file),
    });
  }

  async #show(vbd: OrphanVbd): Promise<void> {
    for (const file of this.#filesOf(vbd)) await this.#showFile(file);
  }

  async #showFile({ nodeId }: LeavingVbd): Promise<void> {
    await this.#context.server.leave({ op: 'leave', nodeId, leaving: false });
  }

  #freeFile(file: LeavingVbd, waitMs: number): Promise<void> {
    const { place, server, ledger, forgets } = this.#context;
    return awaitFree(
      {
        bus: place.name,
        mountpoint: place.path,
        mountDev: this.#mountDev,
        ...(this.#context.transport === 'fuse-native' && { inodeOf: lookUpInode }),
        setLeaving: async (id, leaving) => (await server.leave({ op: 'leave', nodeId: id, leaving })).held,
        opens: (id) => ledger.countHandles().get(id) ?? 0,
        awaitForget: (id, timeoutMs) => forgets.wait(id, timeoutMs),
      },
      file,
      waitMs,
    );
  }

  #vbdInfo({ nodeId, facts }: OrphanVbd): VbdInfo {
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
    };
  }

  #refusal(): FusetapError {
    const { name } = this.#context.place;
    return new FusetapError('BUSY', `bus ${name} is orphaned: its keeper died`, {
      hint: `fusetap stop --bus ${name}, then attach anew`,
    });
  }

  #record(): void {
    const { place, server } = this.#context;
    writeBusRecord(place.stateDir, {
      bus: place.name,
      path: place.path,
      interface: INTERFACE_VERSION,
      keeperPid: null,
      serverPid: process.pid,
      vbds: server.shown().map(({ facts: { vdev, driver, mode, image } }) => {
        return { vdev, driver, mode, image, identity: null, memory: null };
      }),
    });
  }

  async #end(): Promise<void> {
    const { place, ends, die } = this.#context;
    ends();
    await unmount(place.path, this.#mountDev);
    removeBusFiles(place);
    die();
  }
}
