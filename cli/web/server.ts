/**
 * The HTTP server of `fusetap web`. It only reads, and answers only to those who have its secret (guard.ts).
 *
 *      GET /SECRET/                            the page, and its page.css and page.js
 *      GET /SECRET/stream                      rates and events, as server-sent events
 *      GET /SECRET/map.svg?bus=&vdev=          the picture of a vbd
 *      GET /SECRET/tree?bus=&vdev=             its tree, as text
 */
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { FusetapError } from '../../drivers/errors.js';
import { escapeControls } from '../../drivers/quote.js';
import { type DiskWish, mapPicture, treeText } from './disk-views.js';
import { Feed } from './feed.js';
import { Guard, type Target } from './guard.js';
import type { ListenAddress } from './listen-address.js';
import { ICON_SVG, PAGE_HTML } from './page/markup.js';
import { PAGE_CSS } from './page/style.js';

/** more would only be a fault */
const MOST_STREAMS = 16;
const MOST_CONNECTIONS = 64;
/** how long a client may take to send its request */
const REQUEST_LIMIT_MS = 10_000;
/** a client that does not read is let go: its browser connects again */
const MOST_UNREAD_BYTES = 4 << 20;

const NOTHING_ELSE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS = {
  'Content-Security-Policy': `${NOTHING_ELSE}; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'`,
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Cache-Control': 'no-store',
};

export class WebServer {
  readonly #guard: Guard;
  readonly #feed: Feed;
  readonly #runtimeDir: string;
  readonly #server: Server;

  constructor(runtimeDir: string, { isLoopback }: ListenAddress) {
    this.#runtimeDir = runtimeDir;
    this.#guard = new Guard(isLoopback);
    this.#feed = new Feed(runtimeDir);
    const limits = { headersTimeout: REQUEST_LIMIT_MS, requestTimeout: REQUEST_LIMIT_MS };
    this.#server = createServer(limits, (request, response) => void this.#answer(request, response));
    this.#server.maxConnections = MOST_CONNECTIONS;
  }

  /** @returns the URL of the page @throws FusetapError BUSY, DENIED, FAILED */
  async listen({ host, port }: ListenAddress): Promise<string> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', (error) => reject(cannotListen(error, host, port)));
      this.#server.listen({ host, port }, resolve);
    });
    const { address, port: used, family } = this.#server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${used}/${this.#guard.secret}/`;
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    this.#feed.close();
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    for (const [name, value] of Object.entries(HEADERS)) response.setHeader(name, value);
    const { host, origin, 'sec-fetch-site': site } = request.headers;
    try {
      const judged = this.#guard.judge({ host, origin, site: site as string | undefined, url: request.url ?? '' });
      if ('refused' in judged) {
        // who may not ask must not hold a connection either
        response.setHeader('Connection', 'close');
        sendText(response, 403, judged.refused);
      } else if (request.method !== 'GET') {
        response.setHeader('Allow', 'GET');
        sendText(response, 405, 'this page only reads');
      } else await this.#route(judged.target, request, response);
    } catch (error) {
      if (response.headersSent) response.destroy();
      else sendError(response, error);
    }
  }

  async #route(target: Target, request: IncomingMessage, response: ServerResponse): Promise<void> {
    switch (target.pathname) {
      case '/':
        return send(response, 'text/html', PAGE_HTML);
      case '/page.css':
        return send(response, 'text/css', PAGE_CSS);
      case '/page.js':
        return send(response, 'text/javascript', readFileSync(new URL('browser/page.js', import.meta.url), 'utf8'));
      case '/icon.svg':
        return send(response, 'image/svg+xml', ICON_SVG);
      case '/stream':
        return this.#stream(target, request, response);
      case '/tree':
        return send(response, 'text/plain', await treeText(this.#runtimeDir, wishOf(target, response)));
      case '/map.svg':
        return await this.#sendMap(target, response);
      default:
        return sendText(response, 404, 'there is no such page');
    }
  }

  #stream(target: Target, request: IncomingMessage, response: ServerResponse): void {
    if (this.#feed.clients >= MOST_STREAMS) return sendText(response, 503, 'too many pages are open');
    response.writeHead(200, { 'Content-Type': 'text/event-stream; charset=utf-8' });
    // how soon the browser connects again
    response.write('retry: 1000\n\n');
    const seen = Number(request.headers['last-event-id'] ?? target.searchParams.get('after')) || 0;
    const remove = this.#feed.add({
      seen,
      send(message) {
        if (response.writableLength > MOST_UNREAD_BYTES) response.destroy();
        else response.write(message);
      },
    });
    response.on('close', remove);
  }

  async #sendMap(target: Target, response: ServerResponse): Promise<void> {
    const columns = target.searchParams.get('columns') === '32' ? 32 : 64;
    const picture = await mapPicture(this.#runtimeDir, { ...wishOf(target, response), columns });
    // it has a style sheet of its own, and nothing else
    response.setHeader('Content-Security-Policy', `${NOTHING_ELSE}; style-src 'unsafe-inline'; sandbox`);
    send(response, 'image/svg+xml', picture);
  }
}

/** What is asked of a bus is given up when the client leaves, and when the server ends. */
function wishOf({ searchParams }: Target, response: ServerResponse): DiskWish {
  const left = new AbortController();
  response.on('close', () => left.abort());
  return { bus: searchParams.get('bus') ?? '', vdev: searchParams.get('vdev') ?? '', signal: left.signal };
}

function send(response: ServerResponse, type: string, body: string): void {
  response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8` });
  response.end(body);
}

function sendText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { 'Content-Type': 'text/plain; charset=utf-8' });
  response.end(`${escapeControls(text)}\n`);
}

function sendError(response: ServerResponse, error: unknown): void {
  const isKnown = error instanceof FusetapError;
  const status = isKnown && error.code === 'NOT_FOUND' ? 404 : isKnown && error.code === 'USAGE' ? 400 : 503;
  sendText(response, status, error instanceof Error ? error.message : String(error));
}

function cannotListen(error: NodeJS.ErrnoException, host: string, port: number): FusetapError {
  const place = `${host} port ${port}`;
  switch (error.code) {
    case 'EADDRINUSE':
      return new FusetapError('BUSY', `another program listens on ${place}`, {
        hint: 'choose another port, or omit --listen for a free one',
      });
    case 'EACCES':
      return new FusetapError('DENIED', `${place} may not be used`, { hint: 'choose a port from 1024 on' });
    case 'EADDRNOTAVAIL':
      return new FusetapError('USAGE', `${host} is no address of this machine`, { hint: 'ip address lists them' });
    default:
      return new FusetapError('FAILED', `cannot listen on ${place}: ${error.message}`);
  }
}
