/** Notices that a cluster does not answer. A slow cluster is no error: the state is only shown. */

/** a cluster that has requests, and has ended none for so long, is shown as reconnecting */
const SILENT_MS = 10_000;
const LOOK_MS = 1_000;

export interface SilenceWish {
  /** how many requests are in flight, and how many have ended since ever */
  look(): { readonly count: number; readonly ended: number };
  silent(seconds: number): void;
  /** may be called when there was no silence */
  heard(): void;
  /** is called while there are requests, and once after the last one */
  everySecond(): void;
}

export class Silence {
  readonly #wish: SilenceWish;
  #timer: NodeJS.Timeout | null = null;
  #ended = 0;
  #sinceMs = 0;
  #isSilent = false;

  constructor(wish: SilenceWish) {
    this.#wish = wish;
  }

  /** A request is made; may be called at any time. All are looked at once a second: a timer for each would cost too much. */
  begin(): void {
    if (this.#timer !== null) return;
    this.#sinceMs = performance.now();
    this.#ended = this.#wish.look().ended;
    this.#plan();
  }

  #plan(): void {
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#look();
    }, LOOK_MS);
    this.#timer.unref();
  }

  #look(): void {
    const { count, ended } = this.#wish.look();
    const nowMs = performance.now();
    if (ended !== this.#ended) {
      this.#ended = ended;
      this.#sinceMs = nowMs;
      if (this.#isSilent) this.#wish.heard();
      this.#isSilent = false;
    }
    if (!this.#isSilent) this.#wish.everySecond();
    if (count === 0) return;
    if (nowMs - this.#sinceMs >= SILENT_MS) {
      this.#isSilent = true;
      this.#wish.silent(Math.floor((nowMs - this.#sinceMs) / 1000));
    }
    this.#plan();
  }

  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
