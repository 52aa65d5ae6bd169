/**
 * Receives the data of a large write where they belong. Node receives pieces of 64 KiB, each in memory of its own, which then
 * have to be copied; to allocate and collect that memory took longer than the rest of the request.
 *
 *      'data' of Node: the header and the first bytes ──► read(2) until nothing is left ──► the next 'data' of Node
 *
 * Node alone notices that bytes have come, that the stream has ended, and its errors.
 */
import type { Socket } from 'node:net';
import { descriptorOf } from '../../drivers/nbd/plain-socket.js';
import { addressOf, read } from '../../system/libc.js';

/** then other clients have their turn; Node reads as much */
const MOST_OF_TURN_BYTES = 2 << 20;

export class DirectReceiver {
  readonly #socket: Socket;
  /** in this turn of the event loop */
  #leftBytes = MOST_OF_TURN_BYTES;

  /** @param socket of the system: not encrypted */
  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /**
   * Fills a buffer with what has come and Node has not read.
   * @returns how many bytes it has now; 0: wait for Node to tell of more
   */
  receive(to: Uint8Array): number {
    const fd = descriptorOf(this.#socket);
    // what Node has read comes first
    if (fd === null || this.#socket.readableLength > 0) return 0;
    if (this.#leftBytes === MOST_OF_TURN_BYTES) this.#renew();
    const received = Math.max(0, read(fd, addressOf(to), Math.min(to.byteLength, this.#leftBytes)));
    this.#leftBytes -= received;
    return received;
  }

  /** Node tells of bytes several times in one turn. */
  #renew(): void {
    setImmediate(() => {
      this.#leftBytes = MOST_OF_TURN_BYTES;
    });
  }
}
