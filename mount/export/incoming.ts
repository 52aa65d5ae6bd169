/**
 * What a client sends, in order: first taken in pieces of a known length by the negotiation, then given to the transmission
 * as it comes. A client cannot make it keep more than a bounded number of bytes: the socket is paused meanwhile.
 */
import type { Socket } from 'node:net';

/** more than one option has */
const MOST_KEPT_BYTES = 256 << 10;

export class Incoming {
  readonly #socket: Socket;
  #kept: Buffer = Buffer.alloc(0);
  #wanted = 0;
  #isOver = false;
  #wake: () => void = () => {};
  readonly #listener = (chunk: Buffer): void => this.#add(chunk);

  constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', this.#listener);
    socket.on('close', () => this.#end());
    socket.on('end', () => this.#end());
  }

  #add(chunk: Buffer): void {
    this.#kept = this.#kept.byteLength === 0 ? chunk : Buffer.concat([this.#kept, chunk]);
    if (this.#kept.byteLength >= MOST_KEPT_BYTES) this.#socket.pause();
    if (this.#kept.byteLength >= this.#wanted) this.#wake();
  }

  #end(): void {
    this.#isOver = true;
    this.#wake();
  }

  /** The next bytes, at most 64 KiB; null if the client sends no more. */
  async take(length: number): Promise<Buffer | null> {
    while (this.#kept.byteLength < length && !this.#isOver) {
      this.#wanted = length;
      this.#socket.resume();
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#kept.byteLength < length) return null;
    const taken = this.#kept.subarray(0, length);
    this.#kept = this.#kept.subarray(length);
    return taken;
  }

  /** Listens no more. @returns what has come and was not taken */
  release(): Buffer {
    this.#socket.off('data', this.#listener);
    this.#socket.pause();
    return this.#kept;
  }
}
