/**
 * Detach: when a vbd has left its bus, nobody uses it, its data is durable, and its file and its resources are gone.
 */

import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { defined } from '../../../drivers/defined.js';
import { FusetapError, type PlainError, toFusetapError } from '../../../drivers/errors.js';
import type { DetachChoice } from '../../control/bus-control.js';
import type { DetachedVbd } from '../../control/interface.js';
import { EndingLimits, isTimeUp, type Limit } from '../../ending/limit.js';
import { heldFiles, NOBODY, type WrittenBack, writeBackAbove } from '../../ending/write-back.js';
import { awaitFree, freeAll, lookUp, type Patience } from '../../holders/await-free.js';
import { describeHolders } from '../../holders/describe-holders.js';
import { lookUpInode } from '../../holders/look-up.js';
import { logEvent } from '../../runtime/log.js';
import type { CommandResult } from '../../server/commands.js';
import type { BusParts } from '../vbds/bus-parts.js';
import { mustBeConnected } from '../vbds/kept-disks.js';
import type { Vbd, VbdFile } from '../vbds/vbd.js';
import { filesInUse, filesOf } from '../vbds/vbd-files.js';
import { vbdInfo, vbdInfoUnseen } from '../vbds/vbd-report.js';
import { flushWithoutServer } from './flush-without-server.js';

/** how often to look whether vbds are still in use */
const POLL_MS = 100;

export class Detaching {
  readonly #bus: BusParts;
  /** vbds whose disk did not answer in time: the server still has them open */
  readonly #stillInServer = new WeakSet<Vbd>();

  constructor(bus: BusParts) {
    this.#bus = bus;
  }

  /** @see BusControl.detach */
  async detach(vbd: Vbd, choice: DetachChoice): Promise<DetachedVbd> {
    const { activities } = this.#bus;
    if (choice.force) return await this.#detachByForce(vbd, choice);
    return await activities.run(vbd, 'detaching', choice.signal, async (signal) => {
      if (!this.#bus.failed) {
        mustBeConnected(vbd);
        await this.#bus.images.mustAnswer(this.#bus, vbd);
        await this.ensureUnused(vbd, { waitMs: choice.waitMs, signal });
      }
      // the last chance to undo: the client may have gone away, and the next step cannot be undone
      if (!signal.aborted) return await this.#bus.images.whileAnswering(this.#bus, vbd, this.takeAway(vbd, null));
      await this.allowOpens(vbd);
      throw signal.reason;
    });
  }

  /** Cancels the activity on the vbd, and detaches it. */
  async #detachByForce(vbd: Vbd, choice: DetachChoice): Promise<DetachedVbd> {
    const { activities, vbds } = this.#bus;
    if (!vbd.removal) await activities.cancel(vbd);
    // a reset was past its point of no return: another vbd has the slot now
    if (!vbd.removal && !vbds.has(vbd)) return await this.detach(vbds.find(vbd.vdev), choice);
    return await this.takeAway(vbd, new EndingLimits().start());
  }

  /**
   * Removes a vbd from the bus, once: a second call waits for the first.
   * @param limits null if nobody uses the vbd: its flush has no time limit then
   */
  takeAway(vbd: Vbd, limits: EndingLimits | null): Promise<DetachedVbd> {
    if (limits === null) {
      vbd.removal ??= this.#takeAway(vbd, null);
      return vbd.removal;
    }
    // a removal without limits may be under way, and wait
    const given = this.#giveUp(vbd, limits.writeBack);
    vbd.removal ??= given.then(() => this.#takeAway(vbd, limits));
    return limits.flush.wait(vbd.removal, `${vbd.vdev} was not flushed`);
  }

  async #takeAway(vbd: Vbd, limits: EndingLimits | null): Promise<DetachedVbd> {
    const bus = this.#bus;
    const info = await lookOrFallback(vbdInfo(bus, vbd), () => vbdInfoUnseen(bus, vbd));
    const above = limits === null || bus.failed ? NOBODY : await this.#writeBack(vbd, limits.writeBack);
    if (limits !== null && !bus.failed && vbd.backingId !== null) await this.#cutOff(vbd);
    // nobody uses it any more, and nothing is flushed: the other end need not answer
    if (vbd.source.kept?.isOnlyRead) await this.#makeWaitersFail(vbd, limits?.flush);
    const { flushError } = await this.close(vbd, limits);
    const error = flushError ?? above.error;
    logEvent({ event: 'detached', vdev: vbd.vdev, error: error?.message ?? null });
    const cutOff = above.holders;
    if (cutOff.length > 0) logEvent({ event: 'cut-off', vdev: vbd.vdev, holders: describeHolders(cutOff) });
    return { ...info, ...(error && { error }), ...(cutOff.length > 0 && { cutOff }) };
  }

  /** Requests that wait for a remote disk would make everything that follows wait, too. */
  async #giveUp(vbd: Vbd, limit: Limit): Promise<void> {
    const { kept } = vbd.source;
    if (kept === null) return;
    // a disk that hangs may not be known to be reconnecting yet
    if (kept.reconnecting !== null || (kept.isOnlyRead && vbd.mode === 'r')) await this.#makeWaitersFail(vbd, limit);
  }

  async #makeWaitersFail({ nodeId }: Vbd, limit: Limit | undefined): Promise<void> {
    if (this.#bus.failed) return;
    const given = this.#bus.server.request<'giveUp'>({ op: 'giveUp', nodeId });
    await (limit?.orLate(given, null) ?? given).catch(() => {});
  }

  /** Makes its users (file systems, loop devices) write their own caches back to the vbd. */
  async #writeBack(vbd: Vbd, limit: Limit): Promise<WrittenBack> {
    const { place, server } = this.#bus;
    const held = filesInUse(this.#bus, vbd);
    if (held.length === 0) return NOBODY;
    // a paused vbd would wait for `resume`
    if (vbd.paused) await limit.orLate(server.request<'release'>({ op: 'release', nodeId: vbd.nodeId }), null);
    const files = await heldFiles(this.#bus, held);
    const { runtimeDir } = place;
    return await writeBackAbove(vbd.vdev, files, { limit, readOnly: vbd.mode === 'r', runtimeDir });
  }

  /**
   * Does `ensureUnused` for all vbds, or for none: if one stays in use, the others can be opened again.
   * @throws FusetapError BUSY with the holders, if one is still in use after the wait; the reason of `signal`
   */
  async ensureAllUnused(vbds: readonly Vbd[], { waitMs, signal }: Patience): Promise<void> {
    const deadline = performance.now() + waitMs;
    for (;;) {
      try {
        await freeAll(vbds, {
          free: (vbd) => this.#ensureUnusedNow(vbd, signal),
          show: (vbd) => this.allowOpens(vbd),
        });
        if (!signal?.aborted) return;
        for (const vbd of vbds) await this.allowOpens(vbd);
      } catch (error) {
        const isBusy = error instanceof FusetapError && error.code === 'BUSY';
        if (!isBusy || performance.now() >= deadline) throw error;
      }
      signal?.throwIfAborted();
      await delay(POLL_MS);
    }
  }

  /** @throws FusetapError BUSY also if another activity is under way on the vbd */
  async #ensureUnusedNow(vbd: Vbd, signal: AbortSignal | undefined): Promise<void> {
    if (vbd.removal) return;
    this.#bus.activities.refuse(vbd);
    await this.ensureUnused(vbd, { waitMs: 0, ...defined({ signal }) });
  }

  /**
   * Waits until nobody uses the vbd or its partitions. When it resolves, they cannot be opened any more (`allowOpens`
   * undoes that).
   * @throws FusetapError BUSY with the holders, if one is still in use after the wait; all can be opened again then
   */
  async ensureUnused(vbd: Vbd, patience: Patience): Promise<void> {
    await this.ensureFilesUnused(filesOf(vbd), patience);
  }

  /** The same for some files of a vbd. */
  async ensureFilesUnused(files: readonly VbdFile[], patience: Patience): Promise<void> {
    const deadline = Date.now() + patience.waitMs;
    await freeAll(files, {
      free: (file) => this.ensureFileUnused(file, { ...patience, waitMs: Math.max(0, deadline - Date.now()) }),
      show: (file) => this.allowFileOpens(file),
    });
  }

  /** The same for one file. */
  ensureFileUnused(file: VbdFile, patience: Patience): Promise<void> {
    const { place, server, mountDev, transport, ledger, forgets } = this.#bus;
    return awaitFree(
      {
        bus: place.name,
        runtimeDir: place.runtimeDir,
        lookUp: (path) => lookUp(this.#bus.shell, path),
        setLeaving: async (nodeId, leaving) => {
          file.leaving = leaving;
          return (await server.request<'leave'>({ op: 'leave', nodeId, leaving })).held;
        },
        mountpoint: place.path,
        mountDev,
        ...(transport === 'fuse-native' && { inodeOf: lookUpInode }),
        isPaused: () => this.#bus.vbds.all().some((vbd) => vbd.paused && filesOf(vbd).includes(file)),
        opens: (nodeId) => ledger.countHandles().get(nodeId) ?? 0,
        restarts: () => server.restarts,
        awaitForget: (nodeId, timeoutMs, given) => forgets.wait(nodeId, timeoutMs, given),
      },
      file,
      patience,
    );
  }

  /** Undoes `ensureUnused`: the vbd can be opened again. */
  async allowOpens(vbd: Vbd): Promise<void> {
    for (const file of filesOf(vbd)) await this.allowFileOpens(file);
  }

  async allowFileOpens(file: VbdFile): Promise<void> {
    file.leaving = false;
    await this.#bus.server.request<'leave'>({ op: 'leave', nodeId: file.nodeId, leaving: false });
  }

  /**
   * Flushes and closes the disk, and releases its resources, even if a step fails: the vbd is gone then all the same,
   * and its data may be lost.
   */
  async close(vbd: Vbd, limits: EndingLimits | null = null): Promise<CommandResult<'detach'>> {
    const closed = await this.#closeDisk(vbd, limits);
    this.#bus.vbds.remove(vbd);
    // a write that is under way may still finish
    const usedByServer = this.#stillInServer.has(vbd);
    if (usedByServer) this.#bus.serverMayHang = true;
    const released = [vbd.holdings.release({ usedByServer }), vbd.source.holdings.release({ usedByServer })];
    this.#bus.record();
    if (usedByServer) return closed;
    const closeError = (await Promise.all(released)).find((error) => error !== null) ?? null;
    const isLost = closed.flushError === null && closeError !== null && vbd.mode !== 'r';
    return isLost ? { flushError: toPlain(closeError, vbd) } : closed;
  }

  async #closeDisk(vbd: Vbd, limits: EndingLimits | null): Promise<CommandResult<'detach'>> {
    const { server } = this.#bus;
    const command = { op: 'detach', nodeId: vbd.nodeId } as const;
    const within = <Result>(work: Promise<Result>): Promise<Result> =>
      limits === null ? work : limits.flush.wait(work, `${vbd.vdev} was not flushed`);
    try {
      // a server whose mount was removed can still flush
      const closed = await within(
        this.#bus.failed ? server.lastRequest<'detach'>(command) : server.request<'detach'>(command),
      );
      if (closed !== null) return closed;
    } catch (error) {
      const isUnknown = error instanceof FusetapError && error.code === 'NOT_FOUND';
      if (isTimeUp(error)) this.#stillInServer.add(vbd);
      if (isTimeUp(error) || !(this.#bus.failed || isUnknown)) return { flushError: toPlain(error, vbd) };
    }
    // the bus has failed, or its server does not have the disk
    const { flush } = limits ?? new EndingLimits().start();
    return { flushError: await flushWithoutServer(this.#bus, vbd, flush) };
  }

  /** Ends passthrough for the vbd: when a lookup answers another type for the node, the kernel drops the inode. */
  async #cutOff(vbd: Vbd): Promise<void> {
    await this.#bus.server.request<'poison'>({ op: 'poison', nodeId: vbd.nodeId });
    await lookUp(this.#bus.shell, join(this.#bus.place.path, vbd.vdev));
  }
}

/** how long to look at an image before its vbd is removed: its disk may hang */
const LOOK_MS = 2_000;

/** The result of `look`, or after LOOK_MS that of `make`. `make` is not called later: the vbd may be gone then. */
function lookOrFallback<Result>(look: Promise<Result>, make: () => Result): Promise<Result> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => resolve(Promise.resolve().then(make)), LOOK_MS).unref();
    look.finally(() => clearTimeout(timer)).then(resolve, reject);
  });
}

function toPlain(error: unknown, { vdev }: Vbd): PlainError {
  const reason = error instanceof Error ? error.message : String(error);
  return toFusetapError(error, `closing ${vdev} failed: ${reason}`, { operation: 'flush' }).toJSON();
}
