/**
 * Spare descriptors, so that a server can be started when the keeper has no others left. An attach is refused then, but
 * the bus must not end because of it.
 */
import { closeSync, openSync } from 'node:fs';

/** a spawn needs six for a moment, and two stay open: the channel and the socket for descriptors */
const SPARE_COUNT = 8;

export class SpareFds {
  readonly #fds: number[] = [];

  constructor() {
    this.#fill();
  }

  /** Runs `act` while the spare descriptors are closed, then opens as many again as it can. */
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
      // the next call tries again
    }
  }
}
