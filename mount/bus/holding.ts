/**
 * Holding the I/O of a vbd: it waits, without an error, until it is let go.
 */
import { FusetapError } from '../../drivers/errors.js';
import type { BusParts } from './bus-parts.js';
import { refuseCopying } from './copying.js';
import { holdOtherWriters, type LetGo, nameOfCopy } from './hold-writers.js';
import { Holds, USER } from './holds.js';
import type { Leaving } from './leaving.js';
import { logEvent } from './log.js';
import type { Vbd } from './vbd.js';

export class Holding {
  readonly #bus: BusParts;
  readonly #leaving: Leaving;
  readonly #holds = new Holds<Vbd>({ hold: (vbd) => this.#hold(vbd), letGo: (vbd) => this.#letGo(vbd) });

  constructor(bus: BusParts, leaving: Leaving) {
    this.#bus = bus;
    this.#leaving = leaving;
  }

  /**
   * @param copy the copy that it is held for; none: the user's
   * @throws FusetapError BUSY where it is passed through and open
   */
  async pause(vbd: Vbd, copy: string = USER): Promise<void> {
    await this.#holds.add(vbd, copy);
  }

  /** Of what a copy holds too, nothing is let go before that has ended. */
  async resume(vbd: Vbd, copy: string = USER): Promise<void> {
    if (copy === USER) refuseCopying(this.#bus, vbd);
    await this.#holds.remove(vbd, copy);
  }

  async #hold(vbd: Vbd): Promise<void> {
    if (vbd.backingId === null) {
      vbd.paused = true;
      await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId });
    } else {
      await this.#holdPassedThrough(vbd);
    }
    this.#bus.record();
    logEvent({ event: 'paused', vdev: vbd.vdev });
  }

  /** What the kernel does by itself cannot be held, so nobody may have it open; then opens are held. */
  async #holdPassedThrough(vbd: Vbd): Promise<void> {
    await this.#leaving.freeFile(vbd, 0).catch((error: unknown) => {
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

  async #letGo(vbd: Vbd): Promise<void> {
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
    const copy = nameOfCopy();
    vbd.copying = true;
    const held: Vbd[] = [];
    let letOthersGo: LetGo = async () => {};
    try {
      for (const writer of sharing.filter(({ mode }) => mode !== 'r')) {
        await this.pause(writer, copy);
        held.push(writer);
      }
      const { memory } = vbd;
      if (memory !== null) letOthersGo = await holdOtherWriters(place.runtimeDir, place.name, memory.id, copy);
      return await work();
    } finally {
      vbd.copying = false;
      for (const writer of held) await this.resume(writer, copy);
      await letOthersGo();
    }
  }
}
