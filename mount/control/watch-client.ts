/**
 * Notices that a client went away before it had its answer. What it asked for is then given up or undone.
 *
 *      the client closes its side of the connection, or dies, before the answer is sent      end of file
 *      it closes the connection, or dies, and has not read the whole answer                  ECONNRESET
 *      it has read the answer                                                                end of file: it did not go away
 *
 * The second case is a rule of Linux for Unix sockets: a socket that is closed with unread bytes resets its peer. It needs
 * no help of the client, so it is right for every client, and for one that was killed. To learn that, the server must not
 * close the whole connection before the client does.
 */
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { FusetapError } from '../../drivers/errors.js';

/** the write or read of a connection whose other end is closed */
const CLOSED: readonly unknown[] = ['EPIPE', 'ECONNRESET'];

interface Latest {
  readonly response: ServerResponse;
  readonly gone: AbortController;
}

export class ClientWatch {
  /** the latest request of each connection: a client that sends another one has read the answer to the one before */
  readonly #latest = new WeakMap<Socket, Latest>();

  /** Must be called before the server listens. */
  constructor(server: Server) {
    // Not in the documentation of Node. A client that has closed its side still gets the answer, so it knows when what it
    // asked for is undone.
    Object.assign(server, { httpAllowHalfOpen: true });
    server.on('connection', (socket) => this.#watch(socket));
  }

  #watch(socket: Socket): void {
    socket.on('end', () => {
      const latest = this.#latest.get(socket);
      if (latest?.response.writableEnded === false) leave(latest);
    });
    socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (CLOSED.includes(code)) leave(this.#latest.get(socket));
    });
  }

  /**
   * @param isUndone whether what it asks for is undone if the client does not read the answer
   * @returns aborted if the client goes away
   */
  signalFor({ socket }: IncomingMessage, response: ServerResponse, isUndone: boolean): AbortSignal {
    const latest = { response, gone: new AbortController() };
    this.#latest.set(socket, latest);
    // if the answer is the last one: close our side only
    if (isUndone) socket.destroySoon = () => socket.end();
    response.on('close', () => {
      if (!response.writableFinished) leave(latest);
      // else: no limit for how long the client may take to read
      if (isUndone) socket.setTimeout(0);
    });
    return latest.gone.signal;
  }
}

function leave(latest: Latest | undefined): void {
  latest?.gone.abort(new FusetapError('FAILED', 'the client went away'));
}
