/** One client of an exporter: the negotiation within a limited time, then its requests. */
import type { Socket } from 'node:net';
import type { TlsOptions } from 'node:tls';
import { enlargeUnixSocket } from '../../drivers/nbd/plain-socket.js';
import { EXPORT_FLAG } from '../../drivers/nbd/protocol.js';
import type { ExportedFile } from './exported-file.js';
import { Incoming } from './incoming.js';
import { negotiate, type Offer } from './negotiation.js';
import { encryptedServerSocket } from './tls.js';
import { Transmission } from './transmission.js';

/** a client that says nothing for so long is no client */
const NEGOTIATION_MS = 10_000;
const KEEP_ALIVE_MS = 60_000;
/** a reply of 1 MiB is sent at once */
const SENT_BYTES = 512 << 10;
/** how long the last requests may take, and a client to read the replies, when the exporter ends */
export const LINGER_MS = 5_000;

export interface ConnectionOptions {
  readonly file: ExportedFile;
  readonly name: string;
  readonly description: string;
  /** how to encrypt; null: not at all */
  readonly tls: (() => Promise<TlsOptions>) | null;
}

export class ClientConnection {
  /** the socket of the system; `#socket` may be an encrypted one over it */
  readonly #plain: Socket;
  #socket: Socket;
  #incoming: Incoming;
  #transmission: Transmission | null = null;
  readonly #options: ConnectionOptions;

  constructor(socket: Socket, options: ConnectionOptions) {
    this.#plain = socket;
    this.#socket = socket;
    this.#options = options;
    socket.on('error', () => socket.destroy());
    enlargeUnixSocket(socket, SENT_BYTES);
    socket.setNoDelay(true);
    // a machine that has vanished must not keep its place
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    this.#incoming = new Incoming(socket);
  }

  /** Resolves when the client has left, and all that it asked for is done. */
  async serve(): Promise<void> {
    const { file, name, description, tls } = this.#options;
    const limit = setTimeout(() => this.#plain.destroy(), NEGOTIATION_MS);
    try {
      await file.measure();
      const offer: Offer = {
        ...{ name, description, sizeBytes: file.size, flags: flagsOf(file), withTls: tls !== null },
      };
      const agreement = await negotiate(
        {
          take: (length) => this.#incoming.take(length),
          send: (bytes) => this.#socket.write(bytes),
          encrypt: (bytes) => this.#encrypt(bytes),
        },
        offer,
      );
      if (agreement === null) return this.#leave();
      clearTimeout(limit);
      this.#transmission = new Transmission(this.#socket, file, agreement);
      this.#transmission.begin(this.#incoming.release());
      await this.#transmission.done;
    } finally {
      clearTimeout(limit);
    }
  }

  async #encrypt(bytes: Buffer): Promise<boolean> {
    const { tls } = this.#options;
    const options = await tls?.().catch((error: unknown) => {
      console.error('a client is refused:', error);
      return undefined;
    });
    // bytes behind the option came before the encryption: somebody else may have put them there
    if (options === undefined || this.#incoming.release().byteLength > 0 || this.#plain.destroyed) return false;
    this.#plain.write(bytes);
    try {
      this.#socket = await encryptedServerSocket(this.#plain, options);
    } catch {
      return false;
    }
    this.#socket.on('error', () => this.#plain.destroy());
    this.#incoming = new Incoming(this.#socket);
    return true;
  }

  #leave(): void {
    this.#socket.end(() => this.#plain.destroy());
    setTimeout(() => this.#plain.destroy(), LINGER_MS).unref();
  }

  /** Takes no more requests. Those under way are answered, then `serve` resolves. */
  finish(): void {
    if (this.#transmission === null) this.#plain.destroy();
    else this.#transmission.finish();
    setTimeout(() => this.#plain.destroy(), LINGER_MS).unref();
  }
}

/** What the export can do. All connections use one open file, so a flush on one of them is for all. */
function flagsOf({ readOnly }: ExportedFile): number {
  const { hasFlags, flush, fua, trim, writeZeroes, dontFragment, multiConn } = EXPORT_FLAG;
  const reading = hasFlags | dontFragment | multiConn;
  return readOnly ? reading | EXPORT_FLAG.readOnly : reading | flush | fua | trim | writeZeroes;
}
