/**
 * Descriptors that are kept so that a server can be started where no others are left: the keeper may hold as many as it is
 * allowed to have, and attach is then refused, but a bus must not end of that.
 */
import { closeSync, openSync } from 'node:fs';

/** spawn(2) needs six for a moment, and two stay: the channel and the socket of descriptors */
const SPARE_COUNT = 8;

export class SpareFds {
  readonly #fds: number[] = [];

  constructor() {
    this.#fill();
  }

  /** Does what needs them. What it leaves of them is kept again. */
  lend<Result>(act: () => Result): Result {
    for (const fd of this.#fds.splice(0)) closeSync(fd);
    try {
      return act();
    } finally {
      this.#fill();
    }
  }

  #fill(): void {
    try {
      while (this.#fds.length < SPARE_COUNT) this.#fds.push(openSync('/dev/null', 'r'));
    } catch {
      // the next time, perhaps
    }
  }
}
