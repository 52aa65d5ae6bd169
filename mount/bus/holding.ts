/**
 * Holding the I/O of a vbd: it waits, without an error, until it is let go.
 */
import { FusetapError } from '../../drivers/errors.js';
import type { BusParts } from './bus-parts.js';
import { refuseCopying } from './copying.js';
import { holdOtherWriters, type LetGo } from './hold-writers.js';
import type { Leaving } from './leaving.js';
import { logEvent } from './log.js';
import type { Vbd } from './vbd.js';

export class Holding {
  readonly #bus: BusParts;
  readonly #leaving: Leaving;

  constructor(bus: BusParts, leaving: Leaving) {
    this.#bus = bus;
    this.#leaving = leaving;
  }

  /** @throws FusetapError BUSY where it is passed through and open */
  async pause(vbd: Vbd): Promise<void> {
    if (vbd.paused) return;
    if (vbd.backingId === null) {
      vbd.paused = true;
      await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId });
    } else {
      await this.#pausePassedThrough(vbd);
    }
    this.#bus.record();
    logEvent({ event: 'paused', vdev: vbd.vdev });
  }

  /** What the kernel does by itself cannot be held, so nobody may have it open; then opens are held. */
  async #pausePassedThrough(vbd: Vbd): Promise<void> {
    await this.#leaving.free(vbd, 0).catch((error: unknown) => {
      if (!(error instanceof FusetapError) || error.code !== 'BUSY') throw error;
      throw new FusetapError('BUSY', `${error.message}; it is passed through, so its I/O cannot be held`, {
        hint: 'close it there, or attach it with --passthrough off',
        holders: error.holders,
      });
    });
    vbd.paused = true;
    await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId });
    await this.#leaving.show(vbd);
  }

  async resume(vbd: Vbd): Promise<void> {
    refuseCopying(this.#bus, vbd);
    vbd.paused = false;
    await this.#bus.server.request<'release'>({ op: 'release', nodeId: vbd.nodeId });
    this.#bus.record();
    logEvent({ event: 'resumed', vdev: vbd.vdev });
  }

  /** Does some work while nobody can write to the bytes of a vbd, on this bus or another. */
  async withWritersHeld<Result>(vbd: Vbd, work: () => Promise<Result>): Promise<Result> {
    refuseCopying(this.#bus, vbd);
    const { place, vbds } = this.#bus;
    const sharing = vbd.memory === null ? [vbd] : vbds.all().filter(({ memory }) => memory === vbd.memory);
    const writers = sharing.filter(({ mode, paused }) => mode !== 'r' && !paused);
    vbd.copying = true;
    const held: Vbd[] = [];
    let letOthersGo: LetGo = async () => {};
    try {
      for (const writer of writers) {
        held.push(writer);
        await this.pause(writer);
      }
      if (vbd.memory !== null) letOthersGo = await holdOtherWriters(place.runtimeDir, place.name, vbd.memory.id);
      return await work();
    } finally {
      vbd.copying = false;
      for (const writer of held) await this.resume(writer);
      await letOthersGo();
    }
  }
}
