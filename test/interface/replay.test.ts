/**
 * Requests of every MINOR of the interface keep working: each file of test/interface/ is sent to the server of the
 * control socket, and must result in the same call as then. Files are added, never changed.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { type IncomingMessage, request as send } from 'node:http';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { NAMED_ANSWERS } from '../../mount/control/answers.js';
import type { Asked, KeeperControl } from '../../mount/control/bus-control.js';
import { createControl } from '../../mount/control/http-server.js';
import { INTERFACE_VERSION } from '../../mount/control/interface.js';
import { ROUTES, type RouteName, type Row } from '../../mount/control/routes.js';
import type { LogRecord } from '../../mount/log/read-log.js';
import { makeOpenApi } from '../../scripts/lib/interface/openapi.js';
import { aBus, aVbd, fakeBus, fusetap, tempDir } from '../cli/fake-bus.js';

const ROOT = new URL('../../../', import.meta.url).pathname;

/** A request that was sent once, and what it has to come to. */
interface Kept {
  readonly method: string;
  readonly path: string;
  readonly body?: unknown;
  readonly status: number;
  /** what the bus is asked, in the words of the first version (see callOf), where now more may be; empty: it is not */
  readonly call: unknown[];
}

/** The versions that there are files of, with their requests. */
const VERSIONS = readdirSync(join(ROOT, 'test/interface'))
  .filter((name) => /^\d+\.\d+$/.test(name))
  .map((version) => {
    const directory = join(ROOT, 'test/interface', version);
    const names = readdirSync(join(directory, 'requests')).sort();
    const files = names.map((name): [string, Kept] => [name, readJson(join(directory, 'requests', name)) as Kept]);
    return { version, files, keys: readJson(join(directory, 'keys.json')) as Record<string, string[]> };
  });

function readJson(path: string): unknown {
  return JSON.parse(readFileSync(path, 'utf8'));
}

const ROWS = Object.entries<Row>(ROUTES) as [RouteName, Row][];

/** A bus that remembers what it was asked. */
function recordingBus(calls: unknown[][]): KeeperControl {
  const methods = ROWS.map(([name, row]) => {
    const method = (asked: AnyAsked): object => {
      calls.push(callOf(name, row, asked));
      // that of GET /counters is printed for GET /metrics
      return { bus: '0', state: 'running', keeper: null, server: null, restarts: null, waiting: null, vbds: [] };
    };
    return [name, method];
  });
  async function* follow(): AsyncGenerator<LogRecord> {}
  return { over: false, feed: { follow }, ...Object.fromEntries(methods) } as unknown as KeeperControl;
}

interface AnyAsked {
  readonly vdev: string;
  readonly query: object | undefined;
  readonly body: object | undefined;
}

/** What the methods were called before they had the names of their rows. */
const FIRST_NAMES: Partial<Record<RouteName, string>> = { showBus: 'info', listVbds: 'vbds', start: 'persist' };

/** The call as the first version made it: the parts of the request one by one, and then who watches the copy. */
function callOf(name: RouteName, row: Row, { vdev, query = {}, body }: AnyAsked): unknown[] {
  const told = FIRST_NAMES[name] ?? name;
  if (name === 'start') return [told, (body as Asked<'start'>['body']).transport];
  if (name === 'stop') {
    const { force, waitMs } = body as Asked<'stop'>['body'];
    return [told, force, ...(waitMs > 0 ? ['watcher'] : [])];
  }
  return [
    told,
    ...(row.line.includes('{vdev}') ? [vdev] : []),
    ...[body, query].filter((part) => part !== undefined && Object.keys(part).length > 0),
    ...(row.tellsProgress ? ['watcher'] : []),
  ];
}

interface Answered {
  status: number;
  body: { error?: { code: string; message: string } };
  interface: string | undefined;
}

async function serve(
  t: Test,
): Promise<{ calls: unknown[][]; ask: (one: Omit<Kept, 'status' | 'call'>, version?: string) => Promise<Answered> }> {
  const calls: unknown[][] = [];
  const server = createControl(recordingBus(calls), () => {});
  const socketPath = join(tempDir(t), 's');
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  t.teardown(() => void server.close());
  const ask = async (kept: Omit<Kept, 'status' | 'call'>, version?: string): Promise<Answered> => {
    const { method, path, body } = kept;
    const headers = { connection: 'close', ...(version !== undefined && { 'fusetap-interface': version }) };
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      send({ socketPath, method, path, headers }, resolve)
        .on('error', reject)
        .end(body === undefined ? undefined : JSON.stringify(body));
    });
    let text = '';
    for await (const chunk of response) text += String(chunk);
    return {
      status: response.statusCode ?? 0,
      body: response.headers['content-type'] === 'application/json' ? JSON.parse(text) : {},
      interface: response.headers['fusetap-interface'] as string | undefined,
    };
  };
  return { calls, ask };
}

for (const { version, files, keys } of VERSIONS) {
  t.test(`requests of ${version}`, async (t) => {
    const { calls, ask } = await serve(t);
    for (const [name, kept] of files) {
      const answer = await ask(kept, version);
      t.equal(answer.status, kept.status, `${name}: ${JSON.stringify(answer.body)}`);
      const [first = []] = calls.splice(0);
      t.match(first, kept.call, name);
      t.equal(first.length, kept.call.length, `${name}: as many arguments`);
    }
    t.ok(files.length > 0, 'there are some');
  });

  t.test(`answers of ${version} have all their keys`, async (t) => {
    const answers: Record<string, { readonly entries: object }> = NAMED_ANSWERS;
    for (const [name, promised] of Object.entries(keys)) {
      const now = Object.keys(answers[name]?.entries ?? {});
      t.same(
        promised.filter((key) => !now.includes(key)),
        [],
        name,
      );
    }
  });
}

t.test('the interface of today has its files', async (t) => {
  t.ok(VERSIONS.some(({ version }) => version === INTERFACE_VERSION));
  const sent = VERSIONS.flatMap(({ files }) => files.map(([, { method, path }]) => `${method} ${path.split('?')[0]}`));
  for (const [, { line }] of ROWS) t.ok(sent.includes(line.replace('{vdev}', 'xvda')), line);
});

t.test('docs/openapi.json is what the table of routes makes (scripts/openapi)', async (t) => {
  t.same(readJson(join(ROOT, 'docs/openapi.json')), makeOpenApi());
});

t.test('a malformed request is 400 with one line', async (t) => {
  const { calls, ask } = await serve(t);
  for (const path of ['//', '//vbds', '/vbds/%zz', '/vbds/%ff', 'http://h:99999/', 'http://h/bus', '*']) {
    const answer = await ask({ method: 'GET', path });
    t.match(
      answer,
      { status: 400, body: { error: { code: 'USAGE', message: /^(the path of a request|a part of the path) / } } },
      path,
    );
  }
  const long = await ask({ method: 'POST', path: '/vbds', body: 'x'.repeat(3 << 20) });
  t.match(long, { status: 400, body: { error: { code: 'USAGE', message: /at most 1048576 bytes/ } } });
  t.same(calls, []);
});

t.test('a client of another MAJOR is refused with one clear line, whatever it asks', async (t) => {
  const { calls, ask } = await serve(t);
  for (const version of ['2.0', '0.1', '10.0']) {
    const answer = await ask({ method: 'POST', path: '/of/the/future', body: {} }, version);
    t.equal(answer.status, 501);
    t.equal(answer.interface, INTERFACE_VERSION, 'it says what it speaks');
    t.match(answer.body.error, {
      code: 'UNSUPPORTED',
      message: `the bus speaks interface ${INTERFACE_VERSION}, the client ${version}`,
    });
  }
  const minor = `${INTERFACE_VERSION.split('.')[0]}.99`;
  t.equal((await ask({ method: 'GET', path: '/version' }, minor)).status, 200, 'a newer MINOR is taken');
  t.equal((await ask({ method: 'GET', path: '/version' })).status, 200, 'and one that says nothing');
  t.equal(calls.length, 0);
});

t.test('a client refuses a server of another MAJOR with one clear line', async (t) => {
  const runtime = tempDir(t);
  await fakeBus(t, runtime, '0', (_, response) => {
    response.writeHead(200, { 'fusetap-interface': '2.7' }).end(JSON.stringify(aBus('0', [aVbd()])));
    return undefined;
  });
  const { status, stdout, stderr } = await fusetap(runtime, ['show']);
  t.equal(status, 6);
  t.equal(stdout, '');
  t.match(
    stderr,
    /^fusetap: bus 0 speaks interface 2\.7, this fusetap speaks 1\.\d+: use the fusetap that started the bus, [^\n]+\n$/,
  );
});
