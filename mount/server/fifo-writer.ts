/** Writes to a FIFO without blocking a thread: its reader may be slow, or stopped. */
import { Socket } from 'node:net';

export class FifoWriter {
  readonly #socket: Socket;

  /** @param fd open for writing; closed by `close` */
  constructor(fd: number, signal: AbortSignal) {
    this.#socket = new Socket({ fd, readable: false, writable: true });
    // errors reach the write that waits
    this.#socket.on('error', () => {});
    signal.addEventListener('abort', () => this.#socket.destroy(signal.reason as Error), { once: true });
  }

  /** Resolves when the kernel has the bytes. @throws EPIPE if the reader has gone; the signal's reason when aborted */
  write(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.write(bytes, (error) => (error ? reject(error) : resolve()));
    });
  }

  close(): void {
    this.#socket.destroy();
  }
}
