/** Disks in a real Ceph cluster whose monitor or OSD does not answer: a pause for its vbds, and nothing for the others. */
import t from 'tap';
import type { BusState, VbdInfo } from '../../mount/control/interface.js';
import { whyNoCeph } from '../drivers/rbd/ceph.js';
import { Client } from '../e2e/client.js';
import { collect, eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import type { Bus } from './bus.js';
import { servedByCeph } from './rbd-bus.js';

t.setTimeout(600_000);

const attached = servedByCeph(t, 'memstore');
const skip = whyNot('perl', 'fio') || whyNoCeph();
const LIMIT_MS = 120_000;

async function stateOf(bus: Bus, vbd: VbdInfo): Promise<BusState | undefined> {
  const { vbds } = await bus.info();
  return vbds.find(({ vdev }) => vdev === vbd.vdev)?.state;
}

void t.test('a cluster that stops is a pause, and holds no other vbd of the bus', { skip }, async (t) => {
  const { bus, ceph, vbd } = await attached(t);
  const { bench } = bus;
  const other = await bus.attach({ driver: 'aio', image: await bench.image('other.img', 1 << 20), passthrough: 'off' });
  const client = await Client.open(t, bench, 'direct', vbd.path);
  const free = await Client.open(t, bench, 'read', other.path);
  t.equal(await client.call('write', 0, 4096, 'a'), '4096');

  // librados has limits for what is in flight, and must not wait on the event loop
  const words = ['--name=many', `--filename=${vbd.path}`, '--rw=write', '--bs=1m', '--iodepth=128', '--direct=1'];
  const many = bench.startProgram('fio', [...words, '--ioengine=libaio', '--offset=1m', '--size=40m', '--loops=8'], {
    timeoutMs: LIMIT_MS,
  });
  const manyEnded = collect(many);
  await ceph.pause('osd');
  const waiting = client.call('write', 0, 4096, 'b');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  t.equal(await free.call('read', 0, 4096), '4096', 'another vbd answers');
  await t.rejects(bus.detach(vbd.vdev), { code: 'BUSY', message: /reconnecting since .* has not answered/ });
  ceph.resume('osd');
  t.equal(await waiting, '4096', 'and the write is done');
  t.equal((await manyEnded).status, 0, 'and all the others');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'running');

  await ceph.pause('mon');
  await bus.killServer();
  const late = client.call('write', 4096, 4096, 'c');
  t.equal(await free.call('read', 0, 4096), '4096', 'a takeover does not wait for the monitor');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  t.equal(await free.call('read', 0, 4096), '4096');
  ceph.resume('mon');
  t.equal(await late, '4096');
  t.equal(await client.call('text', 0, 4), 'bbbb');
  t.match(await bus.log(), /reconnected vdev=xvda/);
});

void t.test('a vbd whose cluster hangs can be detached by force, and attached again', { skip }, async (t) => {
  const { bus, ceph, vbd, options } = await attached(t);
  const client = await Client.open(t, bus.bench, 'direct', vbd.path);
  await ceph.pause('osd');
  const waiting = client.call('write', 0, 4096, 'x');
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  t.equal((await bus.detach(vbd.vdev, '?force=1')).vbds.length, 1);
  t.equal(await waiting, 'Input/output error');
  ceph.resume('osd');
  await eventually('the lock is released', LIMIT_MS, () =>
    bus.attach({ driver: 'rbd', image: null, options }).catch(() => undefined),
  );
});

void t.test('a detach that waits for the cluster can be forced', { skip }, async (t) => {
  const { bus, ceph, vbd, options } = await attached(t);
  const client = await Client.open(t, bus.bench, 'direct', vbd.path);
  t.equal(await client.call('write', 0, 4096, 'a'), '4096');
  await client.release();
  await ceph.pause('mon');
  // a detach that begins when the next server has told that it cannot reach the monitor would be refused
  await bus.beginKill();
  // its flush makes the next server take the image over, which needs the monitor
  const waiting = bus.detach(vbd.vdev);
  await eventually('it is told', LIMIT_MS, async () => (await stateOf(bus, vbd)) === 'reconnecting');
  const since = performance.now();
  const forced = await bus.detach(vbd.vdev, '?force=1');
  t.ok(performance.now() - since < 8_000, 'it does not wait, too');
  t.match(forced.vbds, [{ error: { message: /given up/ } }]);
  t.same(await waiting, forced, 'both have the same end');
  ceph.resume('mon');
  // nobody releases it: its owner was killed
  await eventually('the lock falls', LIMIT_MS, () =>
    bus.attach({ driver: 'rbd', image: null, options }).catch(() => undefined),
  );
});
