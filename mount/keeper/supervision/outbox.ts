/**
 * Commands on their way to a server, in the order in which they were given. One whose descriptors find no room, because the
 * server is stopped or slow, is kept, and with it all behind it; the keeper itself never waits.
 */
import { closeSync } from 'node:fs';
import type { Command, Envelope } from '../../server/commands.js';
import { neededFds, passFds } from '../../server/passed-fds.js';

const RETRY_MS = 10;

export class Outbox {
  readonly #socket: number;
  readonly #send: (envelope: Envelope) => void;
  readonly #failed: (id: number, error: Error) => void;
  #waiting: Envelope[] = [];
  #retry: NodeJS.Timeout | null = null;
  #ended = false;

  /**
   * @param socket the keeper's end of the pair; closed by `end`
   * @param send hands a command on
   * @param failed is told of a command that cannot be given to the server
   */
  constructor(socket: number, send: (envelope: Envelope) => void, failed: (id: number, error: Error) => void) {
    this.#socket = socket;
    this.#send = send;
    this.#failed = failed;
  }

  post(id: number, command: Command): void {
    if (this.#ended) return;
    this.#waiting.push({ id, command });
    this.#flush();
  }

  /** Takes a command back that nobody waits for any more: the numbers of its descriptors may soon mean others. */
  drop(id: number): void {
    this.#waiting = this.#waiting.filter((envelope) => envelope.id !== id);
  }

  /** The server is gone. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#waiting = [];
    if (this.#retry !== null) clearTimeout(this.#retry);
    closeSync(this.#socket);
  }

  #flush(): void {
    if (this.#retry !== null) clearTimeout(this.#retry);
    this.#retry = null;
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (!this.#deliver(next)) {
        this.#retry = setTimeout(() => this.#flush(), RETRY_MS);
        return;
      }
      this.#waiting.shift();
    }
  }

  /** @returns false where there is no room for its descriptors */
  #deliver(envelope: Envelope): boolean {
    const { id, command } = envelope;
    const fds = neededFds(command);
    try {
      if (fds.length > 0 && !passFds(this.#socket, id, fds)) return false;
      this.#send(envelope);
    } catch (error) {
      this.#failed(id, error as Error);
    }
    return true;
  }
}
