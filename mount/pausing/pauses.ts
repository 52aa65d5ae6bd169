/**
 * The owners of pauses: the user, and copies of a vbd's bytes under way here or on other buses. A vbd is paused as long
 * as it has an owner of a pause.
 */

import { untilAborted } from '../../system/until-aborted.js';
import { isCopyDead } from './pause-other-buses.js';

/** The owner of a pause that is not for a copy. */
export const USER = 'user';

/** how often to look for dead owners: a vbd paused by a dead keeper is resumed within this time */
const LOOK_MS = 500;

/** Called when the first owner comes and when the last one goes. */
export interface PauseActs<Paused> {
  pause(paused: Paused, owners: readonly string[]): Promise<void>;
  resume(paused: Paused): Promise<void>;
  /** the vbd stays paused, but its owners changed */
  changed?(paused: Paused, owners: readonly string[]): void;
}

interface Pause {
  readonly owners: Set<string>;
  /** the last act, which the next act waits for */
  turn: Promise<void>;
  isPaused: boolean;
}

export class Pauses<Paused extends object> {
  readonly #acts: PauseActs<Paused>;
  readonly #pauses = new WeakMap<Paused, Pause>();
  /** the vbds with a copy among their owners: the process that copies may die */
  readonly #copied = new Set<Paused>();
  #timer: NodeJS.Timeout | null = null;

  constructor(acts: PauseActs<Paused>) {
    this.#acts = acts;
  }

  /** Adds an owner. Resolves when the vbd is paused. Rejects if it cannot be paused; the owner is removed then. */
  async add(paused: Paused, owner: string): Promise<void> {
    const pause = this.#pauses.get(paused) ?? { owners: new Set<string>(), turn: Promise.resolve(), isPaused: false };
    this.#pauses.set(paused, pause);
    pause.owners.add(owner);
    if (owner !== USER) this.#watch(paused);
    try {
      await this.#settle(paused, pause);
    } catch (error) {
      await this.remove(paused, owner);
      throw error;
    }
  }

  /** Adds an owner for a client. If the client goes away before the vbd is paused, the owner is removed again. */
  async addFor(paused: Paused, owner: string, signal: AbortSignal): Promise<void> {
    const wasOwner = this.#pauses.get(paused)?.owners.has(owner);
    try {
      await untilAborted(this.add(paused, owner), signal);
    } catch (error) {
      if (signal.aborted && !wasOwner) this.remove(paused, owner).catch((failure: unknown) => console.error(failure));
      throw error;
    }
  }

  /** Takes over a vbd that another process has paused for these owners. */
  takeOver(paused: Paused, owners: readonly string[]): void {
    this.#pauses.set(paused, { owners: new Set(owners), turn: Promise.resolve(), isPaused: true });
    if (owners.some((owner) => owner !== USER)) this.#watch(paused);
  }

  /** Removes an owner. Resolves when the vbd is resumed, or is paused only for other owners. */
  async remove(paused: Paused, owner: string): Promise<void> {
    const pause = this.#pauses.get(paused);
    if (pause === undefined || !pause.owners.delete(owner)) return;
    await this.#settle(paused, pause);
  }

  /** Waits for its turn, then pauses or resumes as the owners require at that time. */
  #settle(paused: Paused, pause: Pause): Promise<void> {
    const settled = pause.turn.then(async () => {
      const owners = [...pause.owners];
      const isWanted = owners.length > 0;
      if (isWanted && pause.isPaused) return this.#acts.changed?.(paused, owners);
      if (isWanted === pause.isPaused) return;
      await (isWanted ? this.#acts.pause(paused, owners) : this.#acts.resume(paused));
      pause.isPaused = isWanted;
    });
    pause.turn = settled.catch(() => {});
    return settled;
  }

  /** Watches for dead owners: a keeper that was killed during a copy does not resume the vbd. */
  #watch(paused: Paused): void {
    this.#copied.add(paused);
    this.#timer ??= setInterval(() => this.#removeDead(), LOOK_MS).unref();
  }

  #removeDead(): void {
    for (const paused of this.#copied) {
      const copies = [...(this.#pauses.get(paused)?.owners ?? [])].filter((owner) => owner !== USER);
      if (copies.length === 0) this.#copied.delete(paused);
      for (const copy of copies.filter(isCopyDead)) {
        this.remove(paused, copy).catch((error: unknown) => console.error(error));
      }
    }
    if (this.#copied.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
