/** Pause: the I/O of a vbd waits, without an error, until it is resumed. */
import type { PauseChoice } from '../../control/bus-control.js';
import { EndingLimits } from '../../ending/limit.js';
import { freeToPause } from '../../holders/free-to-pause.js';
import { nameOfCopy, pauseOtherWriters, type Resume } from '../../pausing/pause-other-buses.js';
import { Pauses, USER } from '../../pausing/pauses.js';
import { logEvent } from '../../runtime/log.js';
import type { BusParts } from '../vbds/bus-parts.js';
import type { Vbd } from '../vbds/vbd.js';
import type { Detaching } from './detach.js';

export class Pausing {
  readonly #bus: BusParts;
  readonly #detaching: Detaching;
  readonly #pauses = new Pauses<Vbd>({
    pause: (vbd, owners) => this.#pause(vbd, owners),
    resume: (vbd) => this.#resume(vbd),
    changed: (vbd, owners) => this.#tellOwners(vbd, owners),
  });

  constructor(bus: BusParts, detaching: Detaching) {
    this.#bus = bus;
    this.#detaching = detaching;
  }

  /**
   * @throws FusetapError BUSY if it is passed through and open, if its disk does not answer, or if it is being committed, which
   *   would go on; FAILED if its requests take too long. It is resumed when they have ended.
   */
  async pause(vbd: Vbd, { copy = USER, signal }: PauseChoice): Promise<void> {
    this.#bus.activities.refuse(vbd, ['committing']);
    const giveUp = new AbortController();
    const { flush } = new EndingLimits().start();
    try {
      const paused = this.#pauses.addFor(vbd, copy, AbortSignal.any([signal, giveUp.signal]));
      const answered = this.#bus.images.whileAnswering(this.#bus, vbd, paused);
      await flush.wait(answered, `the requests of ${vbd.vdev} that are under way have not ended`);
    } catch (error) {
      giveUp.abort(error);
      throw error;
    }
  }

  /** A vbd that is paused for a copy too stays paused until the copy is made. */
  async resume(vbd: Vbd, copy: string = USER): Promise<void> {
    if (copy === USER) this.#bus.activities.refuse(vbd, ['saving', 'resetting', 'swapping', 'rereading', 'resizing']);
    await this.#pauses.remove(vbd, copy);
  }

  async #pause(vbd: Vbd, owners: readonly string[]): Promise<void> {
    vbd.pausedFor = owners;
    if (vbd.backingId === null) {
      vbd.paused = true;
      await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId, holders: owners });
    } else {
      await this.#pausePassedThrough(vbd);
    }
    vbd.pausedByUser = owners.includes(USER);
    this.#bus.record();
    logEvent({ event: 'paused', vdev: vbd.vdev });
  }

  /** If this keeper dies, the server resumes the vbd when the owners have died too. */
  #tellOwners(vbd: Vbd, owners: readonly string[]): void {
    vbd.pausedFor = owners;
    vbd.pausedByUser = owners.includes(USER);
    this.#bus.server
      .request<'hold'>({ op: 'hold', nodeId: vbd.nodeId, holders: owners })
      .catch((error: unknown) => console.error(error));
  }

  /** The kernel's own I/O cannot be paused, so nobody may have the vbd open. Opens wait while it is paused. */
  async #pausePassedThrough(vbd: Vbd): Promise<void> {
    await freeToPause(() => this.#detaching.ensureFileUnused(vbd, { waitMs: 0 }));
    vbd.paused = true;
    await this.#bus.server.request<'hold'>({ op: 'hold', nodeId: vbd.nodeId, holders: vbd.pausedFor ?? [] });
    await this.#detaching.allowOpens(vbd);
  }

  async #resume(vbd: Vbd): Promise<void> {
    vbd.paused = false;
    vbd.pausedFor = [];
    vbd.pausedByUser = false;
    await this.#bus.server.request<'release'>({ op: 'release', nodeId: vbd.nodeId });
    this.#bus.record();
    logEvent({ event: 'resumed', vdev: vbd.vdev });
  }

  /** Does some work while a vbd is paused. It stays paused afterwards if somebody else wants that. */
  async whilePaused<Result>(vbd: Vbd, signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    const copy = nameOfCopy();
    await this.pause(vbd, { copy, signal });
    return await work().finally(() => this.resume(vbd, copy));
  }

  /** Does some work while nobody can write to the bytes of a vbd, on this bus or another. */
  async withWritersPaused<Result>(vbd: Vbd, signal: AbortSignal, work: () => Promise<Result>): Promise<Result> {
    const { place, vbds } = this.#bus;
    const { memory } = vbd.source;
    const sharing = memory === null ? [vbd] : vbds.all().filter(({ source }) => source.memory === memory);
    const copy = nameOfCopy();
    const paused: Vbd[] = [];
    let resumeOthers: Resume = async () => {};
    try {
      for (const writer of sharing.filter(({ mode }) => mode !== 'r')) {
        await this.pause(writer, { copy, signal });
        paused.push(writer);
      }
      if (memory !== null) {
        const wanted = { runtimeDir: place.runtimeDir, ownBus: place.name, memoryId: memory.id, copy };
        resumeOthers = await pauseOtherWriters(wanted, signal);
      }
      return await work();
    } finally {
      // a vbd that was detached by force meanwhile cannot be resumed; that must not keep the others paused
      const resumed = [...paused.map((writer) => this.resume(writer, copy)), resumeOthers()];
      for (const { status, ...why } of await Promise.allSettled(resumed)) if (status === 'rejected') console.error(why);
    }
  }
}
