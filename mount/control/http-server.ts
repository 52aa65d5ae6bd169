/**
 * The control socket of a bus: HTTP with JSON. docs/control.md lists the routes. Input is validated here, once;
 * behind it types are trusted.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import * as v from 'valibot';
import { type ErrorCode, FusetapError, toFusetapError } from '../../drivers/errors.js';
import { quoted } from '../../drivers/quote.js';
import { VERSION } from '../version.js';
import type { BusControl } from './bus-control.js';
import { type AnswerLine, type ErrorAnswer, INTERFACE_VERSION, PROGRESS_TYPE, type VersionInfo } from './interface.js';
import type { Progress } from './progress.js';
import {
  attachRequest,
  detachQuery,
  holdQuery,
  saveRequest,
  startRequest,
  stopRequest,
  swapRequest,
} from './schemas.js';
import { checkShareName } from './share-names.js';

export const INTERFACE_HEADER = 'fusetap-interface';

const MAX_BODY_BYTES = 1 << 20;
const READ_LIMIT_BYTES = 64 * MAX_BODY_BYTES;

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
}

/** What a route is given: the client's patience ends with `signal`. */
interface Call {
  readonly bus: BusControl;
  readonly path: readonly string[];
  readonly query: URLSearchParams;
  readonly signal: AbortSignal;
  /** tells a client that wants to know how far it is */
  readonly progress: Progress;
  body<T>(schema: v.GenericSchema<unknown, T>): Promise<T>;
}

type Route = (call: Call) => Promise<Answer>;

const ok = (body: unknown): Answer => ({ status: 200, body });

/** The copy that a keeper names, of a vbd that is held for it; a user names none. */
function copyOf(query: URLSearchParams): [] | [copy: string] {
  const { copy } = parse(holdQuery, Object.fromEntries(query));
  return copy === undefined ? [] : [copy];
}

/** METHOD /first-part, with the number of parts behind it */
const ROUTES: Readonly<Record<string, Route>> = {
  'GET version/0': async () => ok({ interface: INTERFACE_VERSION, fusetap: VERSION } satisfies VersionInfo),
  'GET bus/0': async ({ bus }) => ok(await bus.info()),
  'GET vbds/0': async ({ bus }) => ok(await bus.vbds()),
  'GET stats/0': async ({ bus }) => ok(bus.stats()),
  'POST vbds/0': async ({ bus, body, signal, progress }) => {
    const request = await body(attachRequest);
    if (typeof request.share === 'string') checkShareName(request.share);
    return { status: 201, body: await bus.attach(request, { signal, progress }) };
  },
  'GET memory/0': async ({ bus }) => ok(bus.memory()),
  'DELETE vbds/1': async ({ bus, path, query, signal }) => {
    const { force, wait } = parse(detachQuery, Object.fromEntries(query));
    return ok(await bus.detach(path[1] ?? '', { force: force === '1', waitMs: wait * 1000, signal }));
  },
  'POST vbds/2': async ({ bus, path: [, vdev = '', action], body, query, signal, progress }) => {
    if (action === 'save') return ok(await bus.save(vdev, await body(saveRequest), { signal, progress }));
    if (action === 'reset') return ok(await bus.reset(vdev, { signal, progress }));
    if (action === 'pause') return ok(await bus.pause(vdev, { copy: copyOf(query)[0], signal }));
    if (action === 'resume') return ok(await bus.resume(vdev, ...copyOf(query)));
    if (action === 'swap') return ok(await bus.swap(vdev, await body(swapRequest), { signal, progress }));
    throw new FusetapError('NOT_FOUND', `a vbd has no ${action}`, {
      hint: 'there are pause, resume, swap, save and reset',
    });
  },
  'POST start/0': async ({ bus, body }) => {
    const { transport, allowOther } = await body(startRequest);
    await bus.persist(transport, ...(allowOther === undefined ? [] : [allowOther]));
    return ok(await bus.info());
  },
  'POST upgrade/0': async ({ bus }) => ok(await bus.upgrade()),
  'POST stop/0': async ({ bus, body, signal }) => {
    const { force, wait } = await body(stopRequest);
    return ok(await bus.stop(force, { waitMs: (wait ?? 0) * 1000, signal }));
  },
};

/**
 * Makes the server; the caller has it listen.
 * @param ended called when the bus ends and the client that ended it has its answer
 */
export function createControl(bus: BusControl, ended: () => void): Server {
  return createServer((request, response) => {
    answer(bus, request, response).then(
      ({ status, body }) => send(response, status, body, () => bus.over && ended()),
      (error: unknown) => {
        const known = toFusetapError(error, error instanceof Error ? error.message : String(error));
        if (known.code === 'FAILED') console.error(error);
        const body: ErrorAnswer = { error: known.toJSON() };
        send(response, STATUS[known.code], body, () => bus.over && ended());
      },
    );
  });
}

function send(response: ServerResponse, status: number, body: unknown, sent: () => void): void {
  // a client that went away before its answer was ready has had its `close`
  if (response.destroyed || response.closed) sent();
  else response.on('close', sent);
  if (response.headersSent) {
    response.end(`${JSON.stringify({ status, body } satisfies AnswerLine)}\n`);
    return;
  }
  response.writeHead(status, { 'content-type': 'application/json', [INTERFACE_HEADER]: INTERFACE_VERSION });
  response.end(`${JSON.stringify(body)}\n`);
}

async function answer(bus: BusControl, request: IncomingMessage, response: ServerResponse): Promise<Answer> {
  checkInterface(request);
  const url = parseTarget(request.url ?? '');
  const path = url.path.split('/').slice(1).map(decodePart);
  const route = ROUTES[`${request.method} ${path[0]}/${path.length - 1}`];
  if (route === undefined) {
    throw new FusetapError('NOT_FOUND', `no such request: ${request.method} ${url.path}`, {
      hint: `this is interface ${INTERFACE_VERSION}; docs/control.md lists its requests`,
    });
  }
  const gone = new AbortController();
  response.on('close', () => gone.abort(new FusetapError('FAILED', 'the client went away')));
  const body = async <T>(schema: v.GenericSchema<unknown, T>): Promise<T> =>
    parse(schema, parseJson(await readBody(request)));
  const progress = progressTo(request, response);
  return await route({ bus, path, query: url.query, signal: gone.signal, progress, body });
}

/** The path and the query that a request names; as RFC 9112 has it for a server that is no proxy. @throws FusetapError USAGE */
function parseTarget(target: string): { path: string; query: URLSearchParams } {
  if (!/^\/(?!\/)/.test(target)) {
    throw new FusetapError('USAGE', `a request names a path that begins with one "/": ${quoted(target)}`);
  }
  const end = target.indexOf('?');
  const path = end < 0 ? target : target.slice(0, end);
  return { path, query: new URLSearchParams(end < 0 ? '' : target.slice(end + 1)) };
}

function decodePart(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    throw new FusetapError('USAGE', `a part of the path is no text in UTF-8 with %-escapes: ${quoted(part)}`);
  }
}

/**
 * Where the client asks for it, the answer is a line of JSON for each step, and the answer proper, with its status, as
 * the last; the others get their answer when it is there.
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
    hint: 'use the fusetap that started the bus, or stop the bus and start it anew',
  });
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    // what comes beyond is read too, up to a limit: a client that is not read to its end gets a reset, and no answer
    if (length <= MAX_BODY_BYTES) chunks.push(chunk);
    else if (length > READ_LIMIT_BYTES) break;
  }
  if (length > MAX_BODY_BYTES) throw new FusetapError('USAGE', `a request has at most ${MAX_BODY_BYTES} bytes`);
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

/** The message of the schema, or our words for what it has none for. */
function whatIsWrong({ kind, type, expected, received, message }: v.BaseIssue<unknown>): string {
  if (kind !== 'schema') return message;
  if (expected === 'never') return 'is no key of this request';
  if (received === 'undefined') return 'is missing';
  return type === 'strict_object' || type === 'object' ? 'must be an object' : message;
}
