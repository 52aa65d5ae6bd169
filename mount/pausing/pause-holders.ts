/**
 * Who holds the I/O of which vbd: the user, and copies that are being made of its bytes, here or by other keepers. It
 * is held for as long as anybody holds it.
 */
import { isCopyDead } from './pause-other-buses.js';
import { untilAborted } from './until-aborted.js';

/** The one who holds where no copy is named. */
export const USER = 'user';

/** how soon what a dead keeper held goes on */
const LOOK_MS = 500;

/** What is done when the first one comes, and when the last one goes. */
export interface HoldActs<Held> {
  hold(held: Held, holders: readonly string[]): Promise<void>;
  letGo(held: Held): Promise<void>;
  /** others hold it now, too or instead */
  changed?(held: Held, holders: readonly string[]): void;
}

interface Hold {
  readonly holders: Set<string>;
  /** the last thing that was done, which the next waits for */
  turn: Promise<void>;
  isHeld: boolean;
}

export class Holds<Held extends object> {
  readonly #acts: HoldActs<Held>;
  readonly #holds = new WeakMap<Held, Hold>();
  /** what copies hold, which may die */
  readonly #copied = new Set<Held>();
  #timer: NodeJS.Timeout | null = null;

  constructor(acts: HoldActs<Held>) {
    this.#acts = acts;
  }

  /** Resolves when it is held, for this holder too. Rejects where it cannot be: then this one does not hold it. */
  async add(held: Held, holder: string): Promise<void> {
    const hold = this.#holds.get(held) ?? { holders: new Set<string>(), turn: Promise.resolve(), isHeld: false };
    this.#holds.set(held, hold);
    hold.holders.add(holder);
    if (holder !== USER) this.#watch(held);
    try {
      await this.#settle(held, hold);
    } catch (error) {
      await this.remove(held, holder);
      throw error;
    }
  }

  /**
   * The same for as long as the client that asked for it waits: where it goes away before, the holder does not hold it, and
   * it goes on as soon as what is under way has ended.
   */
  async addFor(held: Held, holder: string, signal: AbortSignal): Promise<void> {
    const wasHolder = this.#holds.get(held)?.holders.has(holder);
    try {
      await untilAborted(this.add(held, holder), signal);
    } catch (error) {
      if (signal.aborted && !wasHolder) this.remove(held, holder).catch((failure: unknown) => console.error(failure));
      throw error;
    }
  }

  /** It is held already, for these: another process has held it so far. */
  takeOver(held: Held, holders: readonly string[]): void {
    this.#holds.set(held, { holders: new Set(holders), turn: Promise.resolve(), isHeld: true });
    if (holders.some((holder) => holder !== USER)) this.#watch(held);
  }

  /** Resolves when it goes on, or is held for others only. */
  async remove(held: Held, holder: string): Promise<void> {
    const hold = this.#holds.get(held);
    if (hold === undefined || !hold.holders.delete(holder)) return;
    await this.#settle(held, hold);
  }

  /** Does what is wanted by the time that its turn has come. */
  #settle(held: Held, hold: Hold): Promise<void> {
    const settled = hold.turn.then(async () => {
      const holders = [...hold.holders];
      const isWanted = holders.length > 0;
      if (isWanted && hold.isHeld) return this.#acts.changed?.(held, holders);
      if (isWanted === hold.isHeld) return;
      await (isWanted ? this.#acts.hold(held, holders) : this.#acts.letGo(held));
      hold.isHeld = isWanted;
    });
    hold.turn = settled.catch(() => {});
    return settled;
  }

  /** A keeper that was killed while it copied lets nothing go. */
  #watch(held: Held): void {
    this.#copied.add(held);
    this.#timer ??= setInterval(() => this.#removeDead(), LOOK_MS).unref();
  }

  #removeDead(): void {
    for (const held of this.#copied) {
      const copies = [...(this.#holds.get(held)?.holders ?? [])].filter((holder) => holder !== USER);
      if (copies.length === 0) this.#copied.delete(held);
      for (const copy of copies.filter(isCopyDead)) {
        this.remove(held, copy).catch((error: unknown) => console.error(error));
      }
    }
    if (this.#copied.size > 0 || this.#timer === null) return;
    clearInterval(this.#timer);
    this.#timer = null;
  }
}
