/**
 * Detach after a restart. A FORGET or RELEASE that the dead server had read, and that is lost, leaves no vbd busy; a
 * vbd that is still in use is not detached. A failed flush is reported by the next server.
 */
import t from 'tap';
import * as abi from '../../mount/fuse/protocol/abi.js';
import { Client } from '../e2e/client.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { Crashes } from './crashes.js';

t.setTimeout(120_000);
const skip = whyNot();
/** how long a detach may take on a busy machine */
const LIMIT_MS = 3_000;

async function detachesSoon(t: import('tap').Test, bus: Bus, vdev: string, what: string): Promise<void> {
  const begun = performance.now();
  await bus.detach(vdev);
  t.ok(performance.now() - begun < LIMIT_MS, `${what}: in ${Math.round(performance.now() - begun)} ms`);
}

void t.test('nobody uses it', { skip }, async (t) => {
  const crashes = new Crashes();
  const bus = await startBus(t, crashes.env);
  const image = await bus.bench.image('disk.img', 4 << 20);
  const attach = () => bus.attach({ driver: 'aio', image, vdev: 'xvda' });

  const { path } = await attach();
  await bus.bench.sh('cat "$1" > /dev/null', path);
  await bus.killServer();
  await detachesSoon(t, bus, 'xvda', 'opened before, closed before');

  for (const [name, opcode] of Object.entries({ FORGET: abi.FORGET, RELEASE: abi.RELEASE, LOOKUP: abi.LOOKUP })) {
    await attach();
    crashes.arm('read', opcode);
    await bus.bench.try('cat "$1" > /dev/null', path);
    await detachesSoon(t, bus, 'xvda', `a server that died with ${name} under way`);
    // a FORGET that has not come yet comes now
    await bus.poke();
    t.ok(crashes.left() <= 1);
    await bus.killServer();
    while (crashes.left() > 0) await bus.bench.try('stat "$1"/xvdq', bus.place.path);
    await bus.poke();
  }
});

void t.test('a client that dies between two servers does not keep the vbd busy', { skip }, async (t) => {
  const bus = await startBus(t);
  const { path, vdev } = await bus.attach({ driver: 'aio', image: await bus.bench.image('disk.img', 4 << 20) });
  const client = await Client.open(t, bus.bench, 'write', path);
  process.kill(await bus.serverPid(), 'SIGKILL');
  process.kill(client.pid, 'SIGKILL');
  await bus.settled(1);
  await client.release();
  await detachesSoon(t, bus, vdev, 'its client is dead');
});

void t.test('it is in use', { skip }, async (t) => {
  const bus = await startBus(t);
  const { path, vdev } = await bus.attach({ driver: 'aio', image: await bus.bench.image('disk.img', 4 << 20) });
  for (const way of ['read', 'path', 'map'] as const) {
    const client = await Client.open(t, bus.bench, way, path);
    await bus.killServer();
    const error = await bus.detach(vdev).catch((reason: unknown) => reason);
    t.match(error, { code: 'BUSY', holders: [{ pid: client.pid }] }, `${way}: busy, with the client's pid`);
    t.equal(await bus.bench.sh('head -c 7 "$1" | wc -c', path), '7', 'and it can be opened again');
    await client.release();
  }
  await detachesSoon(t, bus, vdev, 'nobody uses it any more');
});

void t.test('a flush that failed before the crash', { skip }, async (t) => {
  const bus = await startBus(t);
  const image = await bus.bench.image('disk.img', 4 << 20);
  const trigger = bus.bench.path('fails');
  const filters = [{ name: 'error', value: `flush@${trigger}` }];
  const { path, vdev } = await bus.attach({ driver: 'aio', image, filters });
  const clients = [await Client.open(t, bus.bench, 'write', path), await Client.open(t, bus.bench, 'write', path)];
  const [first, second] = clients as [Client, Client];
  await bus.bench.sh('touch "$1"', trigger);
  t.match(await first.call('fsync'), /Input\/output error/, 'the client that asked gets the error');
  await bus.bench.sh('rm "$1"', trigger);
  await bus.killServer();
  t.equal(await first.call('fsync'), 'ok', 'once');
  t.match(await second.call('fsync'), /Input\/output error/, 'the other handle gets the error from the next server');
  t.equal(await second.call('fsync'), 'ok', 'once');
  const third = await Client.open(t, bus.bench, 'write', path);
  t.equal(await third.call('fsync'), 'ok', 'a handle that was opened later gets no error');
  for (const client of [...clients, third]) await client.release();
  t.match(await bus.detach(vdev, '?wait=5'), { vbds: [{ error: { code: 'FAILED' } }] }, 'and detach reports it');
});
