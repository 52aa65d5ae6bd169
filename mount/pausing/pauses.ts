/**
 * Who wants which vbd to be paused: the user, and copies that are being made of its bytes, here or by other keepers. A vbd is
 * paused for as long as anybody wants it.
 */
import { isCopyDead } from './pause-other-buses.js';
import { untilAborted } from './until-aborted.js';

/** The owner of a pause where no copy is named. */
export const USER = 'user';

/** how soon a vbd goes on that a dead keeper had paused */
const LOOK_MS = 500;

/** What is done when the first owner comes, and when the last one goes. */
export interface PauseActs<Paused> {
  pause(paused: Paused, owners: readonly string[]): Promise<void>;
  resume(paused: Paused): Promise<void>;
  /** it stays paused, for other owners */
  changed?(paused: Paused, owners: readonly string[]): void;
}

interface Pause {
  readonly owners: Set<string>;
  /** the last thing that was done, which the next waits for */
  turn: Promise<void>;
  isPaused: boolean;
}

export class Pauses<Paused extends object> {
  readonly #acts: PauseActs<Paused>;
  readonly #pauses = new WeakMap<Paused, Pause>();
  /** those with a copy among their owners, whose maker may die */
  readonly #copied = new Set<Paused>();
  #timer: NodeJS.Timeout | null = null;

  constructor(acts: PauseActs<Paused>) {
    this.#acts = acts;
  }

  /** Adds an owner. Resolves when it is paused. Rejects if it cannot be paused: the owner is removed again. */
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

  /** Adds an owner for a client that may go away. If it does so before the vbd is paused, the owner is removed again. */
  async addFor(paused: Paused, owner: string, signal: AbortSignal): Promise<void> {
    const wasOwner = this.#pauses.get(paused)?.owners.has(owner);
    try {
      await untilAborted(this.add(paused, owner), signal);
    } catch (error) {
      if (signal.aborted && !wasOwner) this.remove(paused, owner).catch((failure: unknown) => console.error(failure));
      throw error;
    }
  }

  /** It is paused already, for these owners: another process has paused it. */
  takeOver(paused: Paused, owners: readonly string[]): void {
    this.#pauses.set(paused, { owners: new Set(owners), turn: Promise.resolve(), isPaused: true });
    if (owners.some((owner) => owner !== USER)) this.#watch(paused);
  }

  /** Removes an owner. Resolves when the vbd goes on, or is paused for other owners only. */
  async remove(paused: Paused, owner: string): Promise<void> {
    const pause = this.#pauses.get(paused);
    if (pause === undefined || !pause.owners.delete(owner)) return;
    await this.#settle(paused, pause);
  }

  /** Waits for its turn, and does what is wanted by then. */
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

  /** A keeper that was killed while it copied resumes nothing. */
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
