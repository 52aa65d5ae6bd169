/**
 * The control socket of a bus: HTTP with JSON. docs/architecture.md lists the routes. Input is validated here, once;
 * behind it types are trusted.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import * as z from 'zod';
import { type ErrorCode, FusetapError, toFusetapError } from '../../drivers/errors.js';
import { VERSION } from '../version.js';
import { type AttachRequest, type ErrorAnswer, INTERFACE_VERSION, type VersionInfo } from './interface.js';
import type { Keeper } from './keeper.js';

export const INTERFACE_HEADER = 'fusetap-interface';

const MAX_BODY_BYTES = 1 << 20;

const attachRequest = z.strictObject({
  driver: z.string().min(1).max(4096),
  image: z.string().startsWith('/', 'must be an absolute path').nullable(),
  vdev: z.string().nullable().default(null),
  mode: z.enum(['r', 'w', 'w!']).default('w'),
  options: z.record(z.string(), z.string()).default({}),
}) satisfies z.ZodType<AttachRequest>;

const stopRequest = z.strictObject({ force: z.boolean().default(false) });

const detachQuery = z.strictObject({
  force: z.enum(['0', '1']).default('0'),
  wait: z.coerce.number().min(0).max(1e6).default(0),
});

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
  readonly keeper: Keeper;
  readonly path: readonly string[];
  readonly query: URLSearchParams;
  readonly signal: AbortSignal;
  body<T>(schema: z.ZodType<T>): Promise<T>;
}

type Route = (call: Call) => Promise<Answer>;

const ok = (body: unknown): Answer => ({ status: 200, body });

/** METHOD /first-part, with the number of parts behind it */
const ROUTES: Readonly<Record<string, Route>> = {
  'GET version/0': async () => ok({ interface: INTERFACE_VERSION, fusetap: VERSION } satisfies VersionInfo),
  'GET bus/0': async ({ keeper }) => ok(await keeper.info()),
  'GET vbds/0': async ({ keeper }) => ok(await keeper.vbds()),
  'POST vbds/0': async ({ keeper, body, signal }) => ({
    status: 201,
    body: await keeper.attach(await body(attachRequest), signal),
  }),
  'DELETE vbds/1': async ({ keeper, path, query }) => {
    const { force, wait } = parse(detachQuery, Object.fromEntries(query));
    return ok(await keeper.detach(path[1] ?? '', { force: force === '1', waitMs: wait * 1000 }));
  },
  'POST start/0': async ({ keeper }) => {
    keeper.persist();
    return ok(await keeper.info());
  },
  'POST upgrade/0': async ({ keeper }) => ok(await keeper.upgrade()),
  'POST stop/0': async ({ keeper, body }) => ok(await keeper.stop((await body(stopRequest)).force)),
};

/**
 * Makes the server; the caller has it listen.
 * @param ended called when the bus ends and the client that ended it has its answer
 */
export function createControl(keeper: Keeper, ended: () => void): Server {
  return createServer((request, response) => {
    answer(keeper, request, response).then(
      ({ status, body }) => send(response, status, body, () => keeper.ending && ended()),
      (error: unknown) => {
        const known = toFusetapError(error, error instanceof Error ? error.message : String(error));
        if (known.code === 'FAILED') console.error(error);
        const body: ErrorAnswer = { error: known.toJSON() };
        send(response, STATUS[known.code], body, () => keeper.ending && ended());
      },
    );
  });
}

function send(response: ServerResponse, status: number, body: unknown, sent: () => void): void {
  // `close` comes also where the client is gone already
  response.on('close', sent);
  response.writeHead(status, { 'content-type': 'application/json', [INTERFACE_HEADER]: INTERFACE_VERSION });
  response.end(`${JSON.stringify(body)}\n`);
}

async function answer(keeper: Keeper, request: IncomingMessage, response: ServerResponse): Promise<Answer> {
  checkInterface(request);
  const url = new URL(request.url ?? '/', 'http://fusetap');
  const path = url.pathname.split('/').slice(1).map(decodeURIComponent);
  const route = ROUTES[`${request.method} ${path[0]}/${path.length - 1}`];
  if (route === undefined) {
    throw new FusetapError('NOT_FOUND', `no such request: ${request.method} ${url.pathname}`, {
      hint: `this is interface ${INTERFACE_VERSION}; docs/architecture.md lists its requests`,
    });
  }
  const gone = new AbortController();
  response.on('close', () => gone.abort(new FusetapError('FAILED', 'the client went away')));
  const body = async <T>(schema: z.ZodType<T>): Promise<T> => parse(schema, parseJson(await readBody(request)));
  return await route({ keeper, path, query: url.searchParams, signal: gone.signal, body });
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
    if (length > MAX_BODY_BYTES) throw new FusetapError('USAGE', `a request has at most ${MAX_BODY_BYTES} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text || '{}');
  } catch (error) {
    throw new FusetapError('USAGE', `the request is not JSON: ${(error as Error).message}`);
  }
}

function parse<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue?.path.join('.') || 'the request';
  throw new FusetapError('USAGE', `wrong request: ${where}: ${issue?.message ?? 'not understood'}`);
}
