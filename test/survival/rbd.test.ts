/**
 * Disks in a real Ceph cluster, while servers of the bus are killed. Clients see a pause, never wrong data; of two writers one
 * loses, and no byte of it lands.
 */
import t from 'tap';
import { whyNoCeph } from '../drivers/rbd/ceph.js';
import { openRbd } from '../drivers/rbd/open.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';
import { servedByCeph } from './rbd-bus.js';

t.setTimeout(600_000);

const attached = servedByCeph(t, 'bluestore');

const skip = whyNot('fio') || whyNoCeph();
const LIMIT_MS = 120_000;
const KILLS = Number(process.env.FUSETAP_RBD_KILLS ?? 4);

for (const [mode, kills] of [
  ['w', KILLS],
  ['w!', 1],
] as const) {
  void t.test(`mode ${mode}: servers of the bus are killed and replaced under load`, { skip }, async (t) => {
    const { bus, vbd, options } = await attached(t, mode);
    const fio = new Verifier(bus.bench, vbd.path);
    const reader = await Client.open(t, bus.bench, 'direct', vbd.path);
    for (let i = 0; i <= kills; i++) {
      await bus.disturb(1, i < kills ? 'kill' : 'upgrade');
      // else a request may meet several kills, and its pause means nothing
      t.equal(await reader.call('read', 0, 4096), '4096');
    }
    await reader.release();
    provesIntact(t, await fio.end(), 'bluestore');
    t.comment(`the longest request took ${Math.round(fio.longestMs)} ms`);
    const { vbds } = await bus.detach(vbd.vdev);
    t.equal(vbds[0]?.error, undefined, 'and everything is durable');
    const again = await bus.attach({ driver: 'rbd', image: null, options });
    t.equal(again.size, FIO_DISK_BYTES, 'the detach has released the lock');
  });
}

void t.test('of two writers one loses, and no byte of it lands', { skip }, async (t) => {
  const { bus, ceph, vbd, image, options } = await attached(t);
  const client = await Client.open(t, bus.bench, 'direct', vbd.path);
  t.equal(await client.call('write', 0, 4096, 'a'), '4096');
  await t.rejects(openRbd(options), { code: 'BUSY', message: /locked by the client 127\.0\.0\.1:0\/\d+/ });
  await ceph.breakLock(image);
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

void t.test('an OSD that is killed and comes back is a pause', { skip }, async (t) => {
  const { bus, ceph, vbd } = await attached(t);
  const client = await Client.open(t, bus.bench, 'direct', vbd.path);
  t.equal(await client.call('write', 0, 4096, 'a'), '4096');
  await ceph.kill('osd');
  const waiting = client.call('write', 4096, 4096, 'b');
  ceph.startDaemon('osd');
  t.equal(await waiting, '4096');
  t.equal(await client.call('text', 4094, 4), 'aabb', 'and nothing is lost');
  t.equal(await client.call('fsync'), 'ok');
});

void t.test('a snapshot is read, whoever serves it, and keeps its size', { skip }, async (t) => {
  const { bus, ceph, vbd, image, options } = await attached(t);
  const writer = await Client.open(t, bus.bench, 'direct', vbd.path);
  await writer.call('write', 0, 4096, 'a');
  await ceph.rbd('snap', 'create', `${image}@one`);
  await writer.call('write', 0, 4096, 'b');
  const uri = `rbd:${image}@one`;
  const snapshot = await bus.attach({ driver: 'rbd', image: null, options: { ...options, uri }, mode: 'r' });
  const reader = await Client.open(t, bus.bench, 'read', snapshot.path);
  t.equal(await reader.call('text', 0, 2), 'aa');
  await bus.killServer();
  t.equal(await reader.call('text', 4094, 3), 'aa\0');
  t.equal(await writer.call('text', 0, 2), 'bb');
  await t.rejects(bus.ask('POST', `/vbds/${vbd.vdev}/resize`), { code: 'UNSUPPORTED', message: /keeps its size/ });
});
