/** Serves the metrics of all buses to Prometheus. */
import { createServer, type Server } from 'node:http';
import { codeOfErrno, FusetapError } from '../../drivers/errors.js';
import type { BusWatch } from '../../mount/client/watching/bus-watch.js';
import { formatFor, MEDIA_TYPES, type MetricsFormat, printMetrics } from '../../mount/client/watching/metrics.js';
import { print } from '../output.js';
import { type ListenPlace, notRunning } from './options.js';

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
  { signal, json }: { signal: AbortSignal; json: boolean },
): Promise<void> {
  const server = createServer((request, response) => {
    const path = request.url?.split('?')[0];
    if (path !== '/metrics' && path !== '/') {
      response.writeHead(404, { 'content-type': 'text/plain' }).end('the metrics are at /metrics\n');
      return;
    }
    if (request.method !== 'GET' && request.method !== 'HEAD') {
      response.writeHead(405, { allow: 'GET, HEAD' }).end();
      return;
    }
    const format = formatFor(request.headers.accept);
    printWatched(watch, format).then(
      (text) => response.writeHead(200, { 'content-type': MEDIA_TYPES[format] }).end(text),
      (error: unknown) => response.writeHead(500, { 'content-type': 'text/plain' }).end(`${String(error)}\n`),
    );
  });
  const url = await listen(server, place);
  print(json ? JSON.stringify({ url }) : `metrics at ${url}`);
  await new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason));
    if (signal.aborted) reject(signal.reason);
  }).finally(() => {
    server.close();
    server.closeAllConnections();
  });
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
