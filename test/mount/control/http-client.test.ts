import { mkdirSync, readdirSync, rmSync } from 'node:fs';
import { createServer as createHttpServer, type ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import type { Test } from 'tap';
import t from 'tap';
import { askBus, isConnectionLost, isNotRunning } from '../../../mount/control/http-client.js';
import { resolveBus } from '../../../mount/runtime/bus-place.js';
import { type Answers, fakeBus, tempDir } from '../../cli/fake-bus.js';

const GET = { method: 'GET', path: '/bus' } as const;

async function busThat(t: Test, answers: Answers) {
  const runtime = tempDir(t);
  const bus = await fakeBus(t, runtime, '0', answers);
  return { bus, place: await resolveBus('0', runtime) };
}

t.test('sends the version of the interface, and returns the body of the answer', async (t) => {
  const { bus, place } = await busThat(t, ({ body }) => ({ status: 201, body: { got: body } }));
  t.same(await askBus(place, { method: 'POST', path: '/vbds?x=1', body: { ä: '\n' } }), { got: { ä: '\n' } });
  t.same(bus.asked, [{ method: 'POST', url: '/vbds?x=1', body: { ä: '\n' }, interface: '1.1' }]);
});

t.test('an error of the bus arrives with all its parts', async (t) => {
  const error = { code: 'BUSY', message: 'xvda is open', hint: 'close it', holders: [{ pid: 7, command: 'dd' }] };
  const { place } = await busThat(t, () => ({ status: 409, body: { error } }));
  await t.rejects(askBus(place, GET), { name: 'FusetapError', ...error });
});

t.test('answers that do not come from fusetap are reported as strange', async (t) => {
  const answers: Record<string, Answers> = {
    'no version': (_, response) => void response.end('{}'),
    'no JSON': (_, response) => void response.writeHead(200, { 'fusetap-interface': '1.0' }).end('<html>'),
    'no error': () => ({ status: 500, body: {} }),
  };
  for (const [what, answer] of Object.entries(answers)) {
    const { place } = await busThat(t, answer);
    await t.rejects(askBus(place, GET), { code: 'FAILED', message: /strange answer/ }, what);
  }
});

t.test('a newer MINOR is accepted, another MAJOR is refused', async (t) => {
  const speak =
    (version: string): Answers =>
    (_, response) =>
      void response.writeHead(200, { 'fusetap-interface': version }).end('{"a":1}');
  t.same(await askBus((await busThat(t, speak('1.9'))).place, GET), { a: 1 });
  for (const version of ['2.0', '0.9', '10.0']) {
    const { place } = await busThat(t, speak(version));
    await t.rejects(askBus(place, GET), { code: 'UNSUPPORTED', message: new RegExp(`interface ${version}`) });
  }
});

t.test('a bus that does not run differs from a connection that is lost', async (t) => {
  const runtime = tempDir(t);
  const place = await resolveBus('0', runtime);
  const ask = () => askBus(place, GET).catch((error: unknown) => error);
  t.ok(isNotRunning(await ask()), 'no directory');
  mkdirSync(place.stateDir, { recursive: true });
  t.ok(isNotRunning(await ask()), 'no socket');
  await leaveSocketBehind(join(place.stateDir, 'control.sock'));
  t.same(readdirSync(place.stateDir), ['control.sock']);
  t.ok(isNotRunning(await ask()), 'a socket without a process');
  rmSync(place.stateDir, { recursive: true });
  await fakeBus(t, runtime, '0', (_, response) => void response.destroy());
  const lost = await ask();
  t.ok(isConnectionLost(lost));
  t.notOk(isNotRunning(lost));
  t.match(lost, { code: 'FAILED', hint: /state\/0\/log/ });
});

/**
 * The socket of a killed keeper. Node removes the socket of a server that it closes, so it is closed under another
 * name.
 */
async function leaveSocketBehind(path: string): Promise<void> {
  const { linkSync } = await import('node:fs');
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.2`, resolve));
  linkSync(`${path}.2`, path);
  await new Promise<void>((resolve) => server.close(() => resolve()));
}

t.test('a socket whose path is too long for a socket address can be reached', async (t) => {
  const runtime = join(tempDir(t), 'x'.repeat(120));
  mkdirSync(runtime);
  const bus = await fakeBus(t, runtime, '0', () => ({ ok: true }));
  const place = await resolveBus('0', runtime);
  const openFiles = () => readdirSync('/proc/self/fd').length;
  await askBus(place, GET);
  const before = openFiles();
  for (let i = 0; i < 5; i++) t.same(await askBus(place, GET), { ok: true });
  t.ok(openFiles() <= before, 'no descriptor is left open');
  bus.leave();
  t.ok(isNotRunning(await askBus(place, GET).catch((error: unknown) => error)));
});

t.test('silence ends after the time limit', async (t) => {
  const { place } = await busThat(t, () => undefined);
  const error = await askBus(place, { ...GET, timeoutMs: 50 }).catch((error: unknown) => error);
  t.ok(isConnectionLost(error));
  t.match(error, { message: /no answer within 0.05 s/ });
});

t.test('an abort closes the connection', async (t) => {
  const controller = new AbortController();
  const closed = new Promise<void>((resolve) => {
    t.context.answer = (_: unknown, response: { on(event: 'close', listener: () => void): void }) => {
      response.on('close', resolve);
      controller.abort();
    };
  });
  const { place } = await busThat(t, t.context.answer as Answers);
  await t.rejects(askBus(place, { ...GET, signal: controller.signal }), { name: 'AbortError' });
  await closed;
});

/** A bus that answers when it has noticed that its client closed its side. */
async function busThatNotices(t: Test, isNew: boolean, answer: (response: ServerResponse) => void) {
  const runtime = tempDir(t);
  const place = await resolveBus('0', runtime);
  mkdirSync(place.stateDir, { recursive: true });
  const server = createHttpServer((request, response) => {
    if (request.url === '/version') return void response.end('{}');
    request.socket.once('end', () => answer(response));
  });
  if (isNew) Object.assign(server, { httpAllowHalfOpen: true });
  await new Promise<void>((resolve) => server.listen(join(place.stateDir, 'control.sock'), resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return place;
}

t.test('a request that is cancelled', async (t) => {
  const head = { 'fusetap-interface': '1.1' };
  const ask = async (isNew: boolean, answer: (response: ServerResponse) => void) => {
    const place = await busThatNotices(t, isNew, answer);
    const cancel = new AbortController();
    const asked = askBus(place, { ...GET, method: 'POST', signal: cancel.signal });
    setTimeout(() => cancel.abort(), 200);
    return asked.catch((error: Error) => error.name);
  };
  const refuse = (response: ServerResponse): void =>
    void response.writeHead(500, head).end('{"error":{"code":"FAILED","message":"gone"}}');
  let isUndone = false;
  const undo = (response: ServerResponse): void =>
    void setTimeout(() => {
      isUndone = true;
      refuse(response);
    }, 300);
  t.equal(await ask(true, undo), 'AbortError');
  t.ok(isUndone, 'rejects when the bus has undone it');
  const succeed = (response: ServerResponse): void => void response.writeHead(200, head).end('{"a":1}');
  t.same(await ask(true, succeed), { a: 1 }, 'resolves if it was done already');
  t.equal(await ask(false, () => {}), 'AbortError', 'a bus of an older version closes the connection');
  const before = performance.now();
  t.equal(await ask(true, () => {}), 'AbortError', 'a bus that does not answer');
  t.ok(performance.now() - before > 4000);
  const silent = await busThatNotices(t, true, () => {});
  const begun = performance.now();
  await t.rejects(askBus(silent, { ...GET, signal: AbortSignal.timeout(200) }), { name: 'TimeoutError' });
  t.ok(performance.now() - begun < 4000, 'a GET has nothing to undo, and ends at once');
  const place = await busThatNotices(t, true, refuse);
  await t.rejects(askBus(place, { ...GET, signal: AbortSignal.abort(new Error('before')) }), { message: 'before' });
});
