/**
 * The old connections of a disk, which are read to their end although nobody needs what comes: nbdkit fails an assertion,
 * and ends, if a client goes away while it sends. A server may never close its side, and may break each connection. So
 * they are bounded in number and in time: each is a descriptor of the bus.
 */

/** how long a server may take to close its side */
export const DRAIN_MS = 60_000;
/** old connections of one disk; of a further one, the oldest is ended at once */
export const MOST_DRAINED = 4;

export class Drain {
  readonly #ends = new Map<() => void, NodeJS.Timeout>();

  /** @param end closes the connection; is called at most once */
  add(end: () => void): void {
    const [oldest] = this.#ends.keys();
    if (oldest !== undefined && this.#ends.size >= MOST_DRAINED) this.#finish(oldest);
    this.#ends.set(end, setTimeout(() => this.#finish(end), DRAIN_MS).unref());
  }

  /** It has ended by itself. */
  remove(end: () => void): void {
    clearTimeout(this.#ends.get(end));
    this.#ends.delete(end);
  }

  #finish(end: () => void): void {
    this.remove(end);
    end();
  }
}
