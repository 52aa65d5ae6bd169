/**
 * Looks again and again while there is something to look after. A timer for each request would cost more than the request.
 */
export class Watch {
  readonly #everyMs: number;
  readonly #look: () => boolean;
  #timer: NodeJS.Timeout | null = null;

  /** @param look tells whether there is still something */
  constructor(everyMs: number, look: () => boolean) {
    this.#everyMs = everyMs;
    this.#look = look;
  }

  /** There is something; may be called at any time. @returns whether there was nothing before */
  begin(): boolean {
    if (this.#timer !== null) return false;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#look()) this.begin();
    }, this.#everyMs);
    return true;
  }

  end(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }
}
