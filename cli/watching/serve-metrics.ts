/** Serves the metrics of all buses to Prometheus. */
import { createServer, type Server } from 'node:http';
import { codeOfErrno, FusetapError } from '../../drivers/errors.js';
import type { BusWatch } from '../../mount/client/watching/bus-watch.js';
import { formatFor, MEDIA_TYPES, type MetricsFormat, printMetrics } from '../../mount/client/watching/metrics.js';
import { print, printNote } from '../output.js';
import { type ListenPlace, notRunning } from './options.js';
import { addressOfHost, isLoopbackAddress } from './own-host.js';

/** several scrapers, and some people */
const MOST_CONNECTIONS = 32;
/** a client that takes longer to read is let go */
const SEND_LIMIT_MS = 30_000;
const SHARED_MS = 1_000;

/** The metrics of all buses now. @param must the bus that must be among them @throws FusetapError NOT_FOUND */
export async function printWatched(watch: BusWatch, format: MetricsFormat, must?: string): Promise<string> {
  const looks = await watch.count();
  const buses = looks.flatMap(({ info }) => info ?? []);
  const silent = looks.flatMap(({ trouble }) => trouble ?? []);
  if (must !== undefined && buses.length + silent.length === 0) throw notRunning(must);
  return printMetrics(buses, format, silent);
}

/** Serves until the signal is aborted. @throws FusetapError if it cannot listen; the AbortError of the signal */
export async function serveMetrics(
  watch: BusWatch,
  place: ListenPlace,
  { signal, json, quiet }: { signal: AbortSignal; json: boolean; quiet: boolean },
): Promise<void> {
  const texts = new SharedTexts(watch);
  const server = createServer((request, response) => {
    response.setTimeout(SEND_LIMIT_MS, () => response.destroy());
    const path = request.url?.split('?')[0];
    if (isLoopback(server) && addressOfHost(request.headers.host ?? '') === null) {
      response.writeHead(403, { 'content-type': 'text/plain', connection: 'close' });
      response.end('ask by an IP address or localhost: a name could be that of another page\n');
      return;
    }
    if (path !== '/metrics' && path !== '/') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('the metrics are at /metrics\n');
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
      return;
    }
    const format = formatFor(request.headers.accept);
    texts.get(format).then(
      (text) => response.writeHead(200, { 'content-type': MEDIA_TYPES[format] }).end(text),
      (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${String(error)}\n`),
    );
  });
  server.maxConnections = MOST_CONNECTIONS;
  const url = await listen(server, place);
  if (!isLoopback(server) && !quiet)
    printNote(`who can reach ${place.host} can read these metrics, without encryption`);
  print(json ? JSON.stringify({ url }) : `metrics at ${url}`);
  await new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason));
    if (signal.aborted) reject(signal.reason);
  }).finally(() => {
    server.close();
    server.closeAllConnections();
  });
}

/** The text of each format, made at most once a second, however many ask. */
class SharedTexts {
  readonly #watch: BusWatch;
  readonly #made = new Map<MetricsFormat, { readonly atMs: number; readonly text: Promise<string> }>();

  constructor(watch: BusWatch) {
    this.#watch = watch;
  }

  get(format: MetricsFormat): Promise<string> {
    const made = this.#made.get(format);
    const nowMs = performance.now();
    if (made !== undefined && nowMs - made.atMs < SHARED_MS) return made.text;
    const text = printWatched(this.#watch, format);
    this.#made.set(format, { atMs: nowMs, text });
    return text;
  }
}

function isLoopback(server: Server): boolean {
  const address = server.address();
  return typeof address === 'object' && address !== null && isLoopbackAddress(address.address);
}

async function listen(server: Server, { host, port }: ListenPlace): Promise<string> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, resolve);
  }).catch((error: NodeJS.ErrnoException) => {
    throw new FusetapError(codeOfErrno(Math.abs(error.errno ?? 0)), `cannot listen on ${host}:${port}: ${error.code}`, {
      hint: error.code === 'EADDRINUSE' ? 'another program listens there: choose another port' : undefined,
    });
  });
  const address = server.address();
  const bound = typeof address === 'object' && address !== null ? address.port : port;
  return `http://${host.includes(':') ? `[${host}]` : host}:${bound}/metrics`;
}
