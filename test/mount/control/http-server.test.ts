/** The server of the control socket uses the table of routes: what it answers if there is no row, or no method. */
import { request as send } from 'node:http';
import { connect } from 'node:net';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { FusetapError } from '../../../drivers/errors.js';
import type { BusControl, OrphanControl } from '../../../mount/control/bus-control.js';
import { createControl } from '../../../mount/control/http-server.js';
import { ROUTES, type Row } from '../../../mount/control/routes.js';
import { tempDir } from '../../cli/fake-bus.js';

interface Answered {
  readonly status: number | undefined;
  readonly body: unknown;
}

/** Serves a bus. @returns a function that sends a request, given its line */
async function serve(t: Test, bus: BusControl): Promise<(line: string, body?: unknown) => Promise<Answered>> {
  const server = createControl(bus, () => {});
  const socketPath = join(tempDir(t), 's');
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  t.teardown(() => void server.close());
  return (line, body) =>
    new Promise((resolve, reject) => {
      const [method, path] = line.split(' ');
      const sent = send({ socketPath, method, path, headers: { connection: 'close' } }, async (response) => {
        let text = '';
        for await (const chunk of response) text += String(chunk);
        resolve({ status: response.statusCode, body: JSON.parse(text) });
      });
      sent.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
    });
}

/** A server whose keeper died: each method answers with its argument. */
function anOrphan(): OrphanControl {
  const rows = Object.entries<Row>(ROUTES).filter(([, { withoutKeeper }]) => withoutKeeper);
  const methods = rows.map(([name]) => [
    name,
    ({ signal, progress, ...asked }: object & Record<string, unknown>) => asked,
  ]);
  const refusal = (): FusetapError => new FusetapError('BUSY', 'bus 0 is orphaned');
  return { ...Object.fromEntries(methods), over: false, refusal } as unknown as OrphanControl;
}

t.test('a path without a row', async (t) => {
  const ask = await serve(t, anOrphan());
  const missing = (message: string, hint: RegExp) => ({
    status: 404,
    body: { error: { code: 'NOT_FOUND', message, hint } },
  });
  const actions = /^its actions are detach-when-unused, pause, resume, .* and resize$/;
  t.match(await ask('POST /vbds/xvda/burn', {}), missing('a vbd has no burn', actions));
  t.match(await ask('POST /vbds/xvda/'), missing('a vbd has no ', actions));
  for (const line of [
    'GET /vbds/xvda/pause',
    'GET /',
    'PUT /bus',
    'POST /vbds/xvda',
    'DELETE /vbds/a/b',
    'GET /bus/x',
  ]) {
    t.match(await ask(line), missing(`no such request: ${line}`, /^this is interface 1\.1; docs\/control\.md lists/));
  }
});

t.test('each part of the path is decoded by itself, whatever characters it has', async (t) => {
  const ask = await serve(t, anOrphan());
  t.same(await ask('POST /vbds/%2Fdev%2Fxvda/pause?copy=1:2:3&more=x'), {
    status: 200,
    body: { vdev: '/dev/xvda', query: { copy: '1:2:3' } },
  });
  t.same(await ask('DELETE /%76bds/'), { status: 200, body: { vdev: '', query: { force: false, waitMs: 0 } } });
});

t.test('a server without a keeper refuses requests that need one, after it has checked them', async (t) => {
  const ask = await serve(t, anOrphan());
  const refused = { status: 409, body: { error: { code: 'BUSY', message: 'bus 0 is orphaned' } } };
  t.match(await ask('POST /vbds', { driver: 'aio', image: '/a.img' }), refused);
  t.match(await ask('POST /vbds/xvda/reset'), refused);
  t.match(await ask('POST /start'), refused);
  t.match(await ask('POST /upgrade', {}), refused);
  t.match(await ask('POST /vbds', { driver: 'aio' }), {
    status: 400,
    body: { error: { code: 'USAGE', message: 'wrong request: image: is missing' } },
  });
  t.match(await ask('GET /version'), { status: 200, body: { interface: '1.1' } });
});

t.test('a client of events that does not read them is let go', async (t) => {
  let left: () => void = () => {};
  const isLeft = new Promise<void>((resolve) => {
    left = resolve;
  });
  const record = { event: 'text', text: 'x'.repeat(1 << 16) };
  const feed = {
    async *follow(signal: AbortSignal) {
      try {
        while (!signal.aborted) yield record;
      } finally {
        left();
      }
    },
  };
  const server = createControl({ ...anOrphan(), feed } as unknown as BusControl, () => {});
  const socketPath = join(tempDir(t), 's');
  await new Promise<void>((resolve) => server.listen(socketPath, resolve));
  t.teardown(() => void server.close());
  const client = connect(socketPath);
  t.teardown(() => void client.destroy());
  client.on('error', () => {}).pause();
  client.write('GET /events HTTP/1.1\r\nhost: x\r\n\r\n');
  await isLeft;
  t.notOk(client.destroyed, 'the client has not left by itself');
});
