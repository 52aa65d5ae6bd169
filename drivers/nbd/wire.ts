/**
 * A byte stream to an NBD server, over TCP or a unix socket, later perhaps encrypted.
 *
 * Plain sockets read into a buffer of ours (`onread`), which saves an allocation of 64 KiB for each read. The next
 * server can look into that buffer, because it is memory that the keeper has too. Node reads only a little; whoever gets that
 * receives the rest, where it belongs.
 */
import { connect, type Socket } from 'node:net';
import { endSending, setSocketOption } from '../../system/libc.js';
import type { Drain } from './drain.js';
import { lookupInTurn } from './lookup.js';
import { descriptorOf, enlargeUnixSocket } from './plain-socket.js';
import type { NbdAddress } from './uri.js';

/** idle connections are probed, so that middleboxes do not forget them */
const KEEP_ALIVE_MS = 10_000;
/** unacknowledged bytes for so long mean that the other machine is gone */
const TCP_USER_TIMEOUT_MS = 60_000;
/** what Node reads of a plain stream at a time */
export const FIRST_BYTES = 8 << 10;
/** long writes are sent with few calls */
const SENT_BYTES = 1 << 20;
const IPPROTO_TCP = 6;
const TCP_USER_TIMEOUT = 18;

export interface WireEvents {
  /** the view is valid only during the call */
  data(bytes: Uint8Array): void;
  /** once; error: null if the server has closed the stream */
  ended(error: Error | null): void;
}

const DEAF: WireEvents = { data: () => {}, ended: () => {} };

export class Wire {
  /** the socket of the system; `socket` may be an encrypted one over it */
  readonly #plain: Socket;
  #socket: Socket;
  #events = DEAF;
  #end: { readonly error: Error | null } | null = null;
  #error: Error | null = null;
  readonly #drain: Drain;
  readonly #destroy = (): void => {
    this.#socket.destroy();
    this.#plain.destroy();
  };

  private constructor(socket: Socket, drain: Drain) {
    this.#drain = drain;
    this.#plain = socket;
    this.#socket = socket;
  }

  /**
   * Connects.
   * @param receive the buffer for what comes; null: the stream will be encrypted, so it is of no use
   * @param drain takes the connection when it is closed
   * @throws the system's error; AbortError
   */
  static async dial(
    address: NbdAddress,
    receive: Uint8Array | null,
    { signal, drain }: { readonly signal: AbortSignal; readonly drain: Drain },
  ): Promise<Wire> {
    signal.throwIfAborted();
    const { host, port, socket: path } = address;
    let wire: Wire | null = null;
    const onread = receive && {
      buffer: receive.subarray(0, FIRST_BYTES),
      callback: (length: number): boolean => {
        wire?.data(receive.subarray(0, length));
        return true;
      },
    };
    const place = path === null ? { host: host ?? '', port, lookup: lookupInTurn } : { path };
    const socket = connect({ ...place, ...(onread && { onread }) });
    const made = new Wire(socket, drain);
    wire = made;
    made.#listen(socket, receive === null);
    await made.#connected(signal);
    if (path === null) made.#tune();
    else enlargeUnixSocket(socket, SENT_BYTES);
    return made;
  }

  #connected(signal: AbortSignal): Promise<void> {
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      const abort = (): void => {
        socket.destroy();
        reject(signal.reason);
      };
      signal.addEventListener('abort', abort, { once: true });
      socket.once('connect', () => {
        signal.removeEventListener('abort', abort);
        resolve();
      });
      socket.once('close', () => {
        signal.removeEventListener('abort', abort);
        reject(this.#error ?? new Error('the connection was closed'));
      });
    });
  }

  #tune(): void {
    this.#socket.setNoDelay(true);
    this.#socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const { fd } = this;
    if (fd !== null) setSocketOption(fd, { level: IPPROTO_TCP, name: TCP_USER_TIMEOUT, value: TCP_USER_TIMEOUT_MS });
  }

  #listen(socket: Socket, byEvents: boolean): void {
    if (byEvents) socket.on('data', (bytes) => this.data(bytes));
    socket.on('error', (error) => {
      this.#error ??= error;
    });
    // the server has closed its side: nothing that we send will be answered
    socket.on('end', () => this.#over());
    socket.on('close', () => this.#over());
  }

  /** Nothing comes any more. */
  #over(): void {
    this.#drain.remove(this.#destroy);
    this.#destroy();
    this.#tellEnd();
  }

  #tellEnd(): void {
    if (this.#end !== null) return;
    this.#end = { error: this.#error };
    this.#events.ended(this.#error);
  }

  data(bytes: Uint8Array): void {
    if (this.#end === null) this.#events.data(bytes);
    // nobody looks at it, but the buffer is that of the next connection
    else bytes.fill(0);
  }

  /** Who gets what comes from now on. If the stream has ended already, it is told at once. */
  set events(events: WireEvents) {
    this.#events = events;
    if (this.#end !== null) events.ended(this.#end.error);
  }

  /** its descriptor; null if it is closed */
  get fd(): number | null {
    return descriptorOf(this.#plain);
  }

  /** Encrypts the stream. @param encrypt makes the encrypted socket, which is connected */
  async encrypt(encrypt: (socket: Socket) => Promise<Socket>): Promise<void> {
    const plain = this.#socket;
    plain.removeAllListeners('data');
    plain.removeAllListeners('end');
    this.#socket = await encrypt(plain);
    this.#listen(this.#socket, true);
  }

  /** Sends chunks with one system call. They must not change until `sent` is called. */
  send(chunks: readonly Uint8Array[], sent: () => void): void {
    const socket = this.#socket;
    const last = chunks.length - 1;
    socket.cork();
    for (const [i, chunk] of chunks.entries()) {
      if (i === last) socket.write(chunk, sent);
      else socket.write(chunk);
    }
    socket.uncork();
  }

  /** Ends the stream after what was sent. */
  finish(): void {
    const socket = this.#socket;
    if (this.#end !== null) return;
    this.#end = { error: null };
    socket.end(() => socket.destroy());
    // the server may read nothing
    setTimeout(() => socket.destroy(), LINGER_MS).unref();
  }

  /**
   * Ends the stream at once. Others may have duplicates of the socket, so closing the descriptor would not end it: it is
   * shut down. What comes until the server closes its side is thrown away (drain.ts).
   * @param error for `ended`
   */
  close(error: Error | null = null): void {
    if (this.#end !== null) return;
    this.#error ??= error;
    const { fd } = this;
    if (fd !== null) endSending(fd);
    this.#tellEnd();
    this.#drain.add(this.#destroy);
  }
}

/** how long the last bytes may take */
const LINGER_MS = 500;
