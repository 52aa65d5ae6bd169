/**
 * How a vbd leaves its bus: nobody holds it, its data is durable, its file is gone, and all that the keeper held for it.
 */
import { closeSync } from 'node:fs';
import { join } from 'node:path';
import { FusetapError } from '../../drivers/errors.js';
import { unregisterBacking } from '../fuse/backing.js';
import { lookUpInode } from '../fuse-native/look-up.js';
import type { DetachChoice } from './bus-control.js';
import { type BusParts, deviceOf } from './bus-parts.js';
import { refuseCopying } from './copying.js';
import { awaitFree, freeAll, lookUp } from './detach.js';
import type { DetachedVbd } from './interface.js';
import type { CommandResult } from './ipc.js';
import type { LedgerIndexes } from './ledger-indexes.js';
import { logEvent } from './log.js';
import type { Vbd, VbdFile } from './vbd.js';
import { filesOf } from './vbd-files.js';
import { vbdInfo } from './vbd-report.js';

export class Leaving {
  readonly #bus: BusParts;
  readonly #indexes: LedgerIndexes;

  constructor(bus: BusParts, indexes: LedgerIndexes) {
    this.#bus = bus;
    this.#indexes = indexes;
  }

  /** @see BusControl.detach */
  async detach(vbd: Vbd, { force, waitMs }: DetachChoice): Promise<DetachedVbd> {
    const bus = this.#bus;
    if (vbd.detaching) {
      throw new FusetapError('BUSY', `${vbd.vdev} on bus ${bus.place.name} is being detached already`);
    }
    refuseCopying(bus, vbd);
    vbd.detaching = true;
    try {
      if (!force && !bus.failed) await this.free(vbd, waitMs);
      const info = await vbdInfo(bus, vbd);
      if (force && !bus.failed && vbd.backingId !== null) await this.#cutOff(vbd);
      const { flushError } = await this.close(vbd);
      logEvent({ event: 'detached', vdev: vbd.vdev, error: flushError?.message ?? null });
      return flushError === null ? info : { ...info, error: flushError };
    } finally {
      vbd.detaching = false;
    }
  }

  /** Frees all, or none: where one is held, the others can be opened again. */
  async freeAll(vbds: readonly Vbd[]): Promise<void> {
    await freeAll(vbds, {
      free: (vbd) => this.free(vbd, 0),
      show: (vbd) => this.show(vbd),
    });
  }

  /**
   * Resolves when nobody holds the vbd or a partition of it, and nobody can open them: they are leaving.
   * @throws FusetapError BUSY with the holders, where they do not let go in time; all can be opened again then
   */
  async free(vbd: Vbd, waitMs: number): Promise<void> {
    const deadline = Date.now() + waitMs;
    await freeAll(filesOf(vbd), {
      free: (file) => this.freeFile(file, Math.max(0, deadline - Date.now())),
      show: (file) => this.#showFile(file),
    });
  }

  /** The same of one file. */
  freeFile(file: VbdFile, waitMs: number): Promise<void> {
    const { place, server, mountDev, transport, ledger, forgets } = this.#bus;
    return awaitFree(
      {
        bus: place.name,
        setLeaving: async (nodeId, leaving) => {
          file.leaving = leaving;
          return (await server.request<'leave'>({ op: 'leave', nodeId, leaving })).held;
        },
        mountpoint: place.path,
        mountDev,
        ...(transport === 'fuse-native' && { inodeOf: lookUpInode }),
        opens: (nodeId) => ledger.countHandles().get(nodeId) ?? 0,
        awaitForget: (nodeId, timeoutMs) => forgets.wait(nodeId, timeoutMs),
      },
      file,
      waitMs,
    );
  }

  /** A vbd that was leaving stays: it can be opened again. */
  async show(vbd: Vbd): Promise<void> {
    for (const file of filesOf(vbd)) await this.#showFile(file);
  }

  async #showFile(file: VbdFile): Promise<void> {
    file.leaving = false;
    await this.#bus.server.request<'leave'>({ op: 'leave', nodeId: file.nodeId, leaving: false });
  }

  /** Closes the disk and lets go of all that was held for it. */
  async close(vbd: Vbd): Promise<CommandResult<'detach'>> {
    const { server, vbds, memories, failed } = this.#bus;
    const closed = failed ? { flushError: null } : await server.request<'detach'>({ op: 'detach', nodeId: vbd.nodeId });
    vbds.remove(vbd);
    if (vbd.backingId !== null) unregisterBacking(deviceOf(this.#bus), vbd.backingId);
    vbd.claim?.release();
    if (vbd.image !== null) closeSync(vbd.image.fd);
    if (vbd.memory !== null) memories.release(vbd.memory);
    for (const { ledgerIndex } of filesOf(vbd)) this.#indexes.free(ledgerIndex);
    this.#bus.record();
    return closed;
  }

  /** Makes the kernel give up the I/O that it does by itself: it forgets a node that has become something else. */
  async #cutOff(vbd: Vbd): Promise<void> {
    await this.#bus.server.request<'poison'>({ op: 'poison', nodeId: vbd.nodeId });
    await lookUp(join(this.#bus.place.path, vbd.vdev));
  }
}
