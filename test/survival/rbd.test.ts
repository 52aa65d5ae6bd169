/**
 * Disks in a real Ceph cluster, while servers of the bus are killed, and monitor and OSD stop. Clients see a pause, never
 * wrong data; of two writers one loses, and no byte of it lands.
 */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import type { BusState, VbdInfo } from '../../mount/control/interface.js';
import { Ceph, type CephWish, whyNoCeph } from '../drivers/rbd/ceph.js';
import { openRbd } from '../drivers/rbd/open.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';

t.setTimeout(600_000);

const skip = whyNot('fio') || whyNoCeph();
const LIMIT_MS = 120_000;
const KILLS = Number(process.env.FUSETAP_RBD_KILLS ?? 5);

interface Served {
  readonly bus: Bus;
  readonly ceph: Ceph;
  readonly vbd: VbdInfo;
  readonly options: Record<string, string>;
}

let clusters = 0;
async function started(t: Test, wish: CephWish = {}): Promise<Ceph> {
  const ceph = await Ceph.start(join(tmpdir(), `ceph${++clusters}`), wish);
  t.teardown(() => ceph.stop());
  return ceph;
}

async function attached(t: Test, wish: CephWish = {}, mode: 'w' | 'w!' | 'r' = 'w'): Promise<Served> {
  const ceph = await started(t, wish);
  await ceph.create('disk', FIO_DISK_BYTES);
  const bus = await startBus(t);
  const options = { uri: 'rbd:disk', conf: ceph.conf };
  const vbd = await bus.attach({ driver: 'rbd', image: null, options, mode });
  return { bus, ceph, vbd, options };
}

async function stateOf(bus: Bus, vbd: VbdInfo): Promise<BusState | undefined> {
  const { vbds } = await bus.info();
  return vbds.find(({ vdev }) => vdev === vbd.vdev)?.state;
}

for (const [mode, kills] of [
  ['w', KILLS],
  ['w!', 1],
] as const) {
  void t.test(`mode ${mode}: servers of the bus are killed and replaced under load`, { skip }, async (t) => {
    const { bus, vbd } = await attached(t, { store: 'bluestore' }, mode);
    const fio = new Verifier(bus.bench, vbd.path);
    await bus.disturb(kills, 'kill');
    await bus.disturb(1, 'upgrade');
    provesIntact(t, await fio.end(), 'bluestore');
    const { vbds } = await bus.detach(vbd.vdev);
    t.equal(vbds[0]?.error, undefined, 'and everything is durable');
    const again = await bus.attach({ driver: 'rbd', image: null, options: vbd.options ?? {} });
    t.equal(again.size, FIO_DISK_BYTES, 'the detach has released the lock');
  });
}

void t.test('a cluster that stops is a pause, and holds no other vbd of the bus', { skip }, async (t) => {
  const { bus, ceph, vbd } = await attached(t);
  const { bench } = bus;
  const other = await bus.attach({ driver: 'aio', image: await bench.image('other.img', 1 << 20), passthrough: 'off' });
  const client = await Client.open(t, bench, 'direct', vbd.path);
  const free = await Client.open(t, bench, 'read', other.path);
  t.equal(await client.call('write', 0, 4096, 'a'), '4096');

  ceph.signal('osd', 'SIGSTOP');
  const waiting = client.call('write', 0, 4096, 'b');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  t.equal(await free.call('read', 0, 4096), '4096', 'another vbd answers');
  await t.rejects(bus.detach(vbd.vdev), { code: 'BUSY', message: /reconnecting since .* has not answered/ });
  ceph.signal('osd', 'SIGCONT');
  t.equal(await waiting, '4096', 'and the write is done');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'running');

  ceph.signal('mon', 'SIGSTOP');
  await bus.killServer();
  const late = client.call('write', 4096, 4096, 'c');
  t.equal(await free.call('read', 0, 4096), '4096', 'a takeover does not wait for the monitor');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  t.equal(await free.call('read', 0, 4096), '4096');
  ceph.signal('mon', 'SIGCONT');
  t.equal(await late, '4096');
  t.equal(await client.call('text', 0, 4), 'bbbb');
  t.match(await bus.log(), /reconnected vdev=xvda/);
});

void t.test('a vbd whose cluster hangs can be detached by force, and attached again', { skip }, async (t) => {
  const { bus, ceph, vbd, options } = await attached(t);
  const client = await Client.open(t, bus.bench, 'direct', vbd.path);
  ceph.signal('osd', 'SIGSTOP');
  const waiting = client.call('write', 0, 4096, 'x');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  t.equal((await bus.detach(vbd.vdev, '?force=1')).vbds.length, 1);
  t.equal(await waiting, 'Input/output error');
  ceph.signal('osd', 'SIGCONT');
  await eventually('the lock is released', LIMIT_MS, () =>
    bus.attach({ driver: 'rbd', image: null, options }).catch(() => undefined),
  );
});

void t.test('of two writers one loses, and no byte of it lands', { skip }, async (t) => {
  const { bus, ceph, vbd, options } = await attached(t);
  const client = await Client.open(t, bus.bench, 'direct', vbd.path);
  t.equal(await client.call('write', 0, 4096, 'a'), '4096');
  await t.rejects(openRbd(options), { code: 'BUSY', message: /locked by the client 127\.0\.0\.1:0\/\d+/ });
  const [lock] = JSON.parse(await ceph.rbd('lock', 'ls', 'disk', '--format', 'json')) as {
    id: string;
    locker: string;
  }[];
  await ceph.rbd('lock', 'rm', 'disk', lock?.id ?? '', lock?.locker ?? '');
  t.equal(await client.call('write', 0, 4096, 'b'), 'Input/output error');
  const broken = await eventually('it is told', LIMIT_MS, async () => (await bus.info()).vbds[0]?.broken ?? undefined);
  t.match(broken, /^fenced: another client has taken the image/);
  await bus.killServer();
  t.equal(await client.call('write', 0, 4096, 'c'), 'Input/output error', 'nor does the next server');

  const winner = await openRbd(options);
  const bytes = Buffer.alloc(4096);
  await winner.read(bytes, 0);
  t.equal(bytes.toString(), 'a'.repeat(4096));
  await winner.close();
  t.equal((await bus.detach(vbd.vdev, '?force=1')).vbds.length, 1);
});
