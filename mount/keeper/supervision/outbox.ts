/**
 * Sends commands to a server, in order. If the socket has no room for the descriptors of a command, because the server
 * is stopped or slow, that command and all after it stay in a queue. The keeper itself never waits.
 */
import { closeSync } from 'node:fs';
import type { Command, Envelope } from '../../server/commands.js';
import { neededFds, passFds, takeKept } from '../../server/passed-fds.js';

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
   * @param send sends a command
   * @param failed is called for a command that cannot be sent
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

  /** The descriptors that the server has sent under that number. @throws FusetapError FAILED */
  takeKept(number: number): number[] {
    return takeKept(this.#socket, number);
  }

  /** Removes a command that nobody waits for any more: its descriptor numbers may soon belong to other files. */
  drop(id: number): void {
    this.#waiting = this.#waiting.filter((envelope) => envelope.id !== id);
  }

  /** To be called when the server has exited. */
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

  /** @returns false if the socket has no room for its descriptors */
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
