/** When a client counts as gone: by what its socket tells, whatever program it is and however it ended. */
import { createServer, type ServerResponse, request as send } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { ClientWatch } from '../../../mount/control/watch-client.js';
import { tempDir } from '../../cli/fake-bus.js';
import { eventually } from '../../e2e/command.js';
import { rawClient } from './raw-client.js';

interface Asked {
  readonly signal: AbortSignal;
  /** sends the answer; resolves when the system has it */
  answer(bytes?: number): Promise<void>;
}

/** A server that answers when the test says so. */
async function serve(t: Test): Promise<{ path: string; next(): Promise<Asked> }> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    request.resume();
    const signal = clients.signalFor(request, response, request.url === '/undone');
    asked.push({ signal, answer: (bytes = 100) => endWith(response, bytes) });
  });
  const clients = new ClientWatch(server);
  const path = join(tempDir(t), 's');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  const next = async (): Promise<Asked> => {
    await eventually('a request', 20_000, async () => asked.length > 0);
    return asked.shift() as Asked;
  };
  return { path, next };
}

function endWith(response: ServerResponse, bytes: number): Promise<void> {
  return new Promise((resolve) => {
    response.on('close', resolve);
    response.end('x'.repeat(bytes));
  });
}

const isGone = ({ signal }: Asked): Promise<true> =>
  eventually('the client is gone', 20_000, async () => signal.aborted);
const LINE = 'POST /undone';

t.test('a client that dies before the answer', async (t) => {
  const { path, next } = await serve(t);
  const client = rawClient(t, path, LINE, { manner: 'stop' });
  const asked = await next();
  await client.kill();
  await isGone(asked);
  t.match(asked.signal.reason, { code: 'FAILED', message: 'the client went away' });
  await asked.answer();
});

t.test('a client that closes the connection before the answer', async (t) => {
  const { path, next } = await serve(t);
  for (const line of [LINE, 'GET /other']) {
    rawClient(t, path, line, { manner: 'leave' });
    const asked = await next();
    await isGone(asked);
    t.pass(line);
    await asked.answer();
  }
});

t.test('a client that closes its side before the answer still gets it', async (t) => {
  const { path, next } = await serve(t);
  const client = rawClient(t, path, LINE, { manner: 'half' });
  const asked = await next();
  await isGone(asked);
  await asked.answer();
  t.match(await client.printed(/xxx/), /^HTTP\/1\.1 200 OK/);
});

t.test('a client that dies and has not read the answer', async (t) => {
  const { path, next } = await serve(t);
  for (const [bytes, connection] of [
    [1, 'close'],
    [100, 'keep-alive'],
    [100_000, 'close'],
    [100_000, 'keep-alive'],
  ] as const) {
    const client = rawClient(t, path, LINE, { manner: 'stop', connection });
    const asked = await next();
    await asked.answer(bytes);
    await delay(50);
    t.notOk(asked.signal.aborted, 'it may still read it');
    await client.kill();
    await isGone(asked);
    t.pass(`${bytes} bytes, ${connection}`);
  }
});

t.test('a client that dies and has read the answer', async (t) => {
  const { path, next } = await serve(t);
  for (const connection of ['close', 'keep-alive'] as const) {
    const client = rawClient(t, path, LINE, { manner: 'read', connection });
    const asked = await next();
    await asked.answer();
    await client.printed(connection === 'close' ? /x{100}.*END/s : /x{100}/);
    await client.kill();
    await delay(100);
    t.notOk(asked.signal.aborted, connection);
  }
});

t.test('a client of Node', async (t) => {
  const { path, next } = await serve(t);
  for (const agent of [false, undefined] as const) {
    const done = new Promise<void>((resolve) => {
      send({ socketPath: path, path: '/undone', method: 'POST', agent }, (response) => {
        response.resume().on('end', resolve);
      }).end();
    });
    const asked = await next();
    await asked.answer();
    await done;
    await delay(50);
    t.notOk(asked.signal.aborted);
  }
});

t.test('a later request on the connection shows that the answer was read', async (t) => {
  const { path, next } = await serve(t);
  const socket = connect(path);
  t.teardown(() => socket.destroy());
  const ask = (): void => void socket.write('POST /undone HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n');
  socket.resume();
  ask();
  const first = await next();
  await first.answer();
  ask();
  const second = await next();
  socket.destroy();
  await isGone(second);
  t.notOk(first.signal.aborted);
  await second.answer();
});

t.test('what follows the answer does not matter', async (t) => {
  const { path, next } = await serve(t);
  const socket = connect(path);
  t.teardown(() => socket.destroy());
  socket.resume();
  socket.write('POST /undone HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n');
  const asked = await next();
  await asked.answer();
  socket.write('this is not HTTP\r\n\r\n');
  await new Promise((resolve) => socket.once('close', resolve));
  await delay(50);
  t.notOk(asked.signal.aborted);
});
