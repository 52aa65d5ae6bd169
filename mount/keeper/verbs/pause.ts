/**
 * Holding the I/O of a vbd: it waits, without an error, until it is let go.
 */
import type { PauseChoice } from '../../control/bus-control.js';
import { EndingLimits } from '../../ending/limit.js';
import { freeToHold } from '../../holders/free-to-pause.js';
import { Holds, USER } from '../../pausing/pause-holders.js';
import { holdOtherWriters, type LetGo, nameOfCopy } from '../../pausing/pause-other-buses.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import type { Detaching } from './detach.js';

export class Pausing {
  readonly #bus: BusParts;
  readonly #detaching: Detaching;
  readonly #holds = new Holds<Vbd>({
    hold: (vbd, holders) => this.#hold(vbd, holders),
    letGo: (vbd) => this.#letGo(vbd),
    changed: (vbd, holders) => this.#tellHolders(vbd, holders),
  });

  constructor(bus: BusParts, leaving: Detaching) {
    this.#bus = bus;
    this.#detaching = leaving;
  }

  /**
   * @throws FusetapError BUSY where it is passed through and open, or where its disk does not answer; FAILED where its requests
   *   take too long. It goes on then as soon as they have ended.
   */
  async pause(vbd: Vbd, { copy = USER, signal }: PauseChoice): Promise<void> {
    const giveUp = new AbortController();
    const { flush } = new EndingLimits().start();
    try {
      const held = this.#holds.addFor(vbd, copy, AbortSignal.any([signal, giveUp.signal]));
      const answered = this.#bus.images.whileAnswering(this.#bus, vbd, held);
      await flush.wait(answered, `the requests of ${vbd.vdev} that are under way have not ended`);
    } catch (error) {
      giveUp.abort(error);
      throw error;
    }
  }

  /** A vbd that a copy holds too stays held until that has ended. */
  async resume(vbd: Vbd, copy: string = USER): Promise<void> {
    if (copy === USER) this.#bus.activities.refuse(vbd, ['saving', 'resetting', 'swapping']);
    await this.#holds.remove(vbd, copy);
  }

  async #hold(vbd: Vbd, holders: readonly string[]): Promise<void> {
    vbd.heldFor = holders;
    if (vbd.backingId === null) {
      vbd.paused = true;
      await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId, holders });
    } else {
      await this.#holdPassedThrough(vbd);
    }
    this.#bus.record();
    logEvent({ event: 'paused', vdev: vbd.vdev });
  }

  /** For the case that this keeper dies: the server then lets it go when they do. */
  #tellHolders(vbd: Vbd, holders: readonly string[]): void {
    vbd.heldFor = holders;
    this.#bus.server
      .request<'hold'>({ op: 'hold', nodeId: vbd.nodeId, holders })
      .catch((error: unknown) => console.error(error));
  }

  /** What the kernel does by itself cannot be held, so nobody may have it open; then opens are held. */
  async #holdPassedThrough(vbd: Vbd): Promise<void> {
    await freeToHold(() => this.#detaching.freeFile(vbd, { waitMs: 0 }));
    vbd.paused = true;
    await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId, holders: vbd.heldFor ?? [] });
    await this.#detaching.show(vbd);
  }

  async #letGo(vbd: Vbd): Promise<void> {
    vbd.paused = false;
    vbd.heldFor = [];
    await this.#bus.server.request<'release'>({ op: 'release', nodeId: vbd.nodeId });
    this.#bus.record();
    logEvent({ event: 'resumed', vdev: vbd.vdev });
  }

  /** Does some work while nobody can write to the bytes of a vbd, on this bus or another. */
  async withWritersPaused<Result>(vbd: Vbd, signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    const { place, vbds } = this.#bus;
    const { memory } = vbd.source;
    const sharing = memory === null ? [vbd] : vbds.all().filter(({ source }) => source.memory === memory);
    const copy = nameOfCopy();
    const held: Vbd[] = [];
    let letOthersGo: LetGo = async () => {};
    try {
      for (const writer of sharing.filter(({ mode }) => mode !== 'r')) {
        await this.pause(writer, { copy, signal });
        held.push(writer);
      }
      if (memory !== null) {
        const wanted = { runtimeDir: place.runtimeDir, ownBus: place.name, memoryId: memory.id, copy };
        letOthersGo = await holdOtherWriters(wanted, signal);
      }
      return await work();
    } finally {
      // one that was detached by force meanwhile cannot be let go, and must not keep the others held
      const letGo = [...held.map((writer) => this.resume(writer, copy)), letOthersGo()];
      for (const { status, ...why } of await Promise.allSettled(letGo)) if (status === 'rejected') console.error(why);
    }
  }
}
