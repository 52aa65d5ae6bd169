/**
 * The control socket of a bus: HTTP with JSON. routes.ts defines the requests. Input is validated only here; all other
 * code trusts the types.
 */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import * as v from 'valibot';
import { type ErrorCode, FusetapError, toFusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { within } from '../../system/within.js';
import { VERSION } from '../version.js';
import type { BusControl } from './bus-control.js';
import {
  type AnswerLine,
  type ErrorAnswer,
  INTERFACE_HEADER,
  INTERFACE_VERSION,
  PROGRESS_TYPE,
  type VersionInfo,
} from './interface.js';
import type { CopyWatcher, Progress } from './progress.js';
import { ROUTES, type Row } from './routes.js';
import { ClientWatch } from './watch-client.js';

const MAX_BODY_BYTES = 1 << 20;
const READ_LIMIT_BYTES = 64 * MAX_BODY_BYTES;
/** how long a client of events may read nothing when its buffers are full */
const READ_LIMIT_MS = 10_000;

const STATUS: Record<ErrorCode, number> = {
  FAILED: 500,
  USAGE: 400,
  NOT_FOUND: 404,
  BUSY: 409,
  DENIED: 403,
  UNSUPPORTED: 501,
  NO_SPACE: 507,
};

interface Answer {
  readonly status: number;
  readonly body: unknown;
  /** the media type of text that is not JSON */
  readonly media?: string;
}

/** The argument of any method, with untyped parts. */
interface AnyAsked extends CopyWatcher {
  readonly vdev: string;
  readonly query: unknown;
  readonly body: unknown;
}

/** The rows, with their lines split into method and path. */
const ROWS = Object.entries<Row>(ROUTES).map(([name, row]) => {
  const [method = '', path = ''] = row.line.split(' ');
  return { name, row, method, parts: path.split('/').slice(1) };
});
const VDEV = '{vdev}';

/**
 * Makes the server; the caller makes it listen.
 * @param ended called when the bus is over and the client that ended it has its answer
 */
export function createControl(bus: BusControl, ended: () => void): Server {
  const server = createServer((request, response) => {
    answer(bus, clients, request, response).then(
      (found) => found !== null && send(response, found, () => bus.over && ended()),
      (error: unknown) => {
        const known = toFusetapError(error, error instanceof Error ? error.message : String(error));
        if (known.code === 'FAILED') console.error(error);
        const body: ErrorAnswer = { error: known.toJSON() };
        send(response, { status: STATUS[known.code], body }, () => bus.over && ended());
      },
    );
  });
  const clients = new ClientWatch(server);
  return server;
}

function send(response: ServerResponse, { status, body, media }: Answer, sent: () => void): void {
  // if the client disconnected before its answer was ready, `close` was emitted already
  if (response.destroyed || response.closed) sent();
  else response.on('close', sent);
  if (response.headersSent) {
    response.end(`${JSON.stringify({ status, body } satisfies AnswerLine)}\n`);
    return;
  }
  response.writeHead(status, { 'content-type': media ?? 'application/json', [INTERFACE_HEADER]: INTERFACE_VERSION });
  response.end(media === undefined ? `${JSON.stringify(body)}\n` : String(body));
}

/** Sends the events of the bus until it ends, or the client goes away. One that does not read them holds up nobody. */
async function sendEvents({ feed }: BusControl, response: ServerResponse, signal: AbortSignal): Promise<null> {
  response.writeHead(200, { 'content-type': PROGRESS_TYPE, [INTERFACE_HEADER]: INTERFACE_VERSION });
  // the client must know when it can rely on getting all events
  response.flushHeaders();
  for await (const record of feed.follow(signal)) {
    if (response.write(`${JSON.stringify(record)}\n`)) continue;
    // not AbortSignal.timeout below AbortSignal.any: Node may collect that as garbage, and then it never comes
    await within(
      once(response, 'drain', { signal }).catch(() => {}),
      READ_LIMIT_MS,
      undefined,
    );
    if (!response.writableNeedDrain) continue;
    // the log is shortened meanwhile, and what this client would get later has gaps
    response.destroy();
    return null;
  }
  response.end();
  return null;
}

async function metricsOf(bus: BusControl, request: IncomingMessage, signal: AbortSignal): Promise<Answer> {
  // few buses are scraped, and every bus pays for the memory of its code
  const { formatFor, MEDIA_TYPES, printMetrics } = await import('./open-metrics.js');
  const counters = await bus.counters({ query: {}, signal, progress: () => {} });
  const format = formatFor(request.headers.accept);
  return { status: 200, body: printMetrics([counters], format), media: MEDIA_TYPES[format] };
}

async function answer(
  bus: BusControl,
  clients: ClientWatch,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<Answer | null> {
  checkInterface(request);
  const target = parseTarget(request.url ?? '');
  const { name, row, vdev } = findRoute(request.method ?? '', target.path);
  const signal = clients.signalFor(request, response, row.isUndone === true);
  const query = row.query && parse(row.query, Object.fromEntries(target.query));
  const body = row.body && parse(row.body, parseJson(await readBody(request)));
  if (name === 'metrics') return await metricsOf(bus, request, signal);
  if (name === 'events') return await sendEvents(bus, response, signal);
  const progress = row.tellsProgress ? progressTo(request, response) : () => {};
  const answered = await run(bus, name, { vdev, query, body, signal, progress });
  return { status: row.status ?? 200, body: answered };
}

/** @throws FusetapError NOT_FOUND; USAGE if the path cannot be decoded */
function findRoute(method: string, path: string): { name: string; row: Row; vdev: string } {
  const parts = path.split('/').slice(1).map(decodePart);
  const found = ROWS.find(
    (each) =>
      each.method === method &&
      each.parts.length === parts.length &&
      each.parts.every((part, i) => part === VDEV || part === parts[i]),
  );
  if (found !== undefined) return { ...found, vdev: parts[found.parts.indexOf(VDEV)] ?? '' };
  if (method === 'POST' && parts.length === 3 && parts[0] === 'vbds') throw noAction(parts[2] ?? '');
  throw new FusetapError('NOT_FOUND', `no such request: ${method} ${path}`, {
    hint: `this is interface ${INTERFACE_VERSION}; docs/control.md lists its requests`,
  });
}

function noAction(action: string): FusetapError {
  const actions = ROWS.flatMap(({ method, parts: [, vdev, last] }) =>
    method === 'POST' && vdev === VDEV && last !== undefined ? [last] : [],
  );
  return new FusetapError('NOT_FOUND', `a vbd has no ${action}`, {
    hint: `its actions are ${actions.slice(0, -1).join(', ')} and ${actions.at(-1)}`,
  });
}

/** Calls the method of that name. The cast is safe: the row has checked the argument, and defines the method's type. */
async function run(bus: BusControl, name: string, asked: AnyAsked): Promise<unknown> {
  if (name === 'version') return versionOf(bus);
  if ('refusal' in bus && !(name in bus)) throw bus.refusal();
  const methods = bus as unknown as Readonly<Record<string, (asked: AnyAsked) => unknown>>;
  return await methods[name]?.(asked);
}

function versionOf({ serverVersion }: BusControl): VersionInfo {
  return { interface: INTERFACE_VERSION, fusetap: VERSION, server: serverVersion };
}

/** The path and the query of a request, in the origin form of RFC 9112. @throws FusetapError USAGE */
function parseTarget(target: string): { path: string; query: URLSearchParams } {
  if (!/^\/(?!\/)/.test(target)) {
    throw new FusetapError('USAGE', `the path of a request must begin with one "/": ${quoted(target)}`);
  }
  const end = target.indexOf('?');
  const path = end < 0 ? target : target.slice(0, end);
  return { path, query: new URLSearchParams(end < 0 ? '' : target.slice(end + 1)) };
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new FusetapError('USAGE', `a part of the path is not UTF-8 with %-escapes: ${quoted(part)}`);
  }
}

/**
 * Sends progress to a client that asks for it: the answer is then a line of JSON for each step, and a last line with
 * the status and the body. Other clients only get the answer.
 */
function progressTo(request: IncomingMessage, response: ServerResponse): Progress {
  if (!request.headers.accept?.includes(PROGRESS_TYPE)) return () => {};
  return (doneBytes, totalBytes) => {
    if (!response.headersSent) {
      response.writeHead(200, { 'content-type': PROGRESS_TYPE, [INTERFACE_HEADER]: INTERFACE_VERSION });
    }
    response.write(`${JSON.stringify({ progress: { doneBytes, totalBytes } } satisfies AnswerLine)}\n`);
  };
}

function checkInterface(request: IncomingMessage): void {
  const asked = request.headers[INTERFACE_HEADER];
  if (typeof asked !== 'string' || asked.split('.')[0] === INTERFACE_VERSION.split('.')[0]) return;
  throw new FusetapError('UNSUPPORTED', `the bus speaks interface ${INTERFACE_VERSION}, the client ${asked}`, {
    hint: 'use the fusetap that started the bus, or stop the bus and start it again',
  });
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    // bytes beyond the limit are read too, up to a second limit: otherwise the client gets a reset instead of an answer
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
    else if (length > READ_LIMIT_BYTES) break;
  }
  if (length > MAX_BODY_BYTES) throw new FusetapError('USAGE', `a request may have at most ${MAX_BODY_BYTES} bytes`);
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text || '{}');
  } catch (error) {
    throw new FusetapError('USAGE', `the request is not JSON: ${(error as Error).message}`);
  }
}

function parse<T>(schema: v.GenericSchema<unknown, T>, value: unknown): T {
  const result = v.safeParse(schema, value, { abortEarly: true });
  if (result.success) return result.output;
  const [issue] = result.issues;
  throw new FusetapError('USAGE', `wrong request: ${v.getDotPath(issue) ?? 'the request'}: ${whatIsWrong(issue)}`);
}

/** The message of the schema, or our own for issues without one. */
function whatIsWrong({ kind, type, expected, received, message }: v.BaseIssue<unknown>): string {
  if (kind !== 'schema') return message;
  if (expected === 'never') return 'is not a key of this request';
  if (received === 'undefined') return 'is missing';
  return type === 'strict_object' || type === 'object' ? 'must be an object' : message;
}
