/** Listens for the clients of an export, on a unix socket or a port. */
import { lstatSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { FusetapError, toFusetapError } from '../../drivers/errors.js';
import { named } from '../../drivers/quote.js';
import { alone } from './alone.js';
import { ClientConnection, type ConnectionOptions } from './connection.js';

const MOST_CLIENTS = 128;
/** a socket that somebody listens at answers at once */
const PROBE_MS = 2_000;
/** sun_path, without the zero at its end */
const MOST_PATH_BYTES = 107;

/** A path, or an address and a port; port 0 is a free one. */
export type ExportPlace = { readonly socket: string } | { readonly host: string; readonly port: number };

export class ExportServer {
  readonly #options: ConnectionOptions;
  readonly #place: ExportPlace;
  readonly #server: Server;
  readonly #clients = new Set<ClientConnection>();
  #allLeft: () => void = () => {};

  constructor(place: ExportPlace, options: ConnectionOptions) {
    this.#options = options;
    this.#place = place;
    // a client that sends no more still wants its replies
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  /**
   * Listens.
   * @returns where: with the port that was chosen
   * @throws FusetapError BUSY if somebody else listens there; FAILED if a file is there that is no socket; USAGE for a path
   * that is too long; the system's error
   */
  async listen(): Promise<ExportPlace> {
    const place = this.#place;
    if ('socket' in place) {
      const { socket } = place;
      refuseLong(socket);
      await alone(socket, async () => {
        await removeStale(socket);
        await this.#begin();
      });
    } else await this.#begin();
    // a connection that cannot be accepted, because descriptors run out, is not the end
    this.#server.on('error', (error) => console.error('a connection was not accepted:', error));
    if ('socket' in place) return place;
    return { host: place.host, port: (this.#server.address() as AddressInfo).port };
  }

  async #begin(): Promise<void> {
    const place = this.#place;
    // a socket is for its owner only
    const umask = process.umask(0o177);
    const listening = new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      if ('socket' in place) this.#server.listen(place.socket, resolve);
      else this.#server.listen(place.port, place.host, resolve);
    });
    process.umask(umask);
    await listening.catch((error: unknown) => {
      throw cannotListen(place, error);
    });
  }

  #accept(socket: Socket): void {
    if (this.#clients.size >= MOST_CLIENTS) {
      socket.destroy();
      return;
    }
    const client = new ClientConnection(socket, this.#options);
    this.#clients.add(client);
    client
      .serve()
      .catch((error: unknown) => console.error('a client was dropped:', error))
      .finally(() => {
        this.#clients.delete(client);
        if (this.#clients.size === 0) this.#allLeft();
      });
  }

  /** Takes no more requests. Resolves when those under way are answered. */
  async close(): Promise<void> {
    // this removes the socket's file too
    this.#server.close();
    const left = new Promise<void>((resolve) => {
      this.#allLeft = resolve;
    });
    for (const client of this.#clients) client.finish();
    if (this.#clients.size > 0) await left;
  }
}

/** Node would cut the path, and listen elsewhere. @throws FusetapError USAGE */
function refuseLong(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes <= MOST_PATH_BYTES) return;
  throw new FusetapError(
    'USAGE',
    `the path of a socket has at most ${MOST_PATH_BYTES} bytes, and ${named(path)} has ${bytes}`,
    {
      hint: 'give a shorter --socket PATH',
    },
  );
}

/** Removes the socket of a server that has died. @throws FusetapError BUSY, FAILED */
async function removeStale(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket()) {
    throw new FusetapError('FAILED', `${named(path)} is there already, and is no socket`, {
      hint: 'give another path',
    });
  }
  if (await isListenedAt(path)) {
    throw new FusetapError('BUSY', `another program listens at ${named(path)}`, {
      hint: 'give another path, or end that program: ss -xlp shows it',
    });
  }
  rmSync(path, { force: true });
}

function isListenedAt(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect({ path });
    const tell = (isListening: boolean): void => {
      probe.destroy();
      resolve(isListening);
    };
    probe.setTimeout(PROBE_MS, () => tell(true));
    probe.once('connect', () => tell(true));
    probe.once('error', (error: NodeJS.ErrnoException) => tell(error.code !== 'ECONNREFUSED'));
  });
}

function cannotListen(place: ExportPlace, error: unknown): FusetapError {
  const where = 'socket' in place ? named(place.socket) : `${place.host}:${place.port}`;
  const { code, message } = error as NodeJS.ErrnoException;
  const reason = code === 'EADDRINUSE' ? 'another program listens there' : message;
  return toFusetapError(error, `cannot listen at ${where}: ${reason}`, {
    hint: 'socket' in place ? 'give another --socket PATH' : 'give another port; 0 is a free one',
  });
}
