/**
 * The keeper is killed: its server still serves, and can be listed, detached from and stopped. Then the server is
 * killed too: nobody hangs, and the next attach repairs the bus.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { BusInfo } from '../../mount/control/interface.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { FIO_DISK_BYTES, Verifier } from './fio.js';

t.setTimeout(300_000);
const skip = whyNot();

async function begin(t: Test, env: Record<string, string> = {}) {
  const bus = await startBus(t, env);
  const image = await bus.bench.image('disk.img', 4 << 20, 4 << 20);
  const vbd = await bus.attach({ driver: 'aio', image });
  return { bus, vbd, image };
}

async function killKeeper(bus: Bus): Promise<number> {
  const { keeperPid, serverPid } = await bus.info();
  process.kill(keeperPid as number, 'SIGKILL');
  return serverPid as number;
}

async function orphaned(bus: Bus): Promise<BusInfo> {
  return eventually('the server is an orphan', 5_000, async () => {
    const info = await bus.info().catch(() => undefined);
    return info?.state === 'orphaned' ? info : undefined;
  });
}

t.test('an orphan still serves, and can be stopped', { skip }, async (t) => {
  const { bus, vbd, image } = await begin(t);
  const second = await bus.attach({ driver: 'ram', image: await bus.bench.image('golden.img', 4 << 20, 1000) });
  const client = await Client.open(t, bus.bench, 'write', vbd.path);
  await killKeeper(bus);
  await orphaned(bus);
  t.equal(await client.call('write', 0, 4096), '4096');
  t.equal(await client.call('fsync'), 'ok');
  const listed = JSON.parse(await bus.bench.succeed(['ls', '--json']));
  t.match(listed, [{ vdev: vbd.vdev, state: 'orphaned', opens: 1, keeperPid: null }, { vdev: second.vdev }]);
  t.match(JSON.parse(await bus.bench.succeed(['show', '--json'])), { state: 'orphaned' });
  const refused = await bus.bench.fusetap(['attach', image]);
  t.equal(refused.status, 4);
  t.match(refused.stderr, /fusetap stop/, 'the hint');
  t.match(await bus.bench.fusetap(['detach', vbd.vdev]), { status: 4, stderr: /perl/ }, 'in use: BUSY, with names');
  t.match(await bus.bench.fusetap(['stop']), { status: 4 });
  t.equal(await bus.bench.sh('head -c 9 "$1" | wc -c', second.path), '9', 'a refused stop leaves the others alone');
  await client.release();
  await bus.bench.detach(vbd.vdev);
  t.equal(await bus.bench.sh('head -c 4096 "$1" | tr -d x | wc -c', image), '0', 'the written data is in the image');
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), [], 'nothing is left');
  t.match(await bus.bench.fusetap(['attach', image]), { status: 0, stderr: '' }, 'it can be attached again');
});

t.test('the orphan dies too', { skip }, async (t) => {
  const { bus, vbd, image } = await begin(t);
  const client = await Client.open(t, bus.bench, 'read', vbd.path);
  const pid = await killKeeper(bus);
  await orphaned(bus);
  process.kill(pid, 'SIGKILL');
  await delay(100);
  const begun = performance.now();
  t.match(await client.call('read', 0, 4096), /not connected|abort/i);
  t.match(await Client.tryOpen(t, bus.bench, 'read', vbd.path), /not connected/i);
  t.ok(performance.now() - begun < 3_000, 'at once');
  t.match(await bus.bench.fusetap(['ls', '--json']), { stderr: /fusetap stop/ }, 'ls says what to do');
  const path = await bus.bench.attach(image, vbd.vdev);
  t.equal(await bus.bench.sh('head -c 100 "$1" | wc -c', path), '100', 'attach repairs');
  await client.release();
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), [], 'nothing is left');
});

t.test('keeper and server die at once under fio', { skip: whyNot('fio') }, async (t) => {
  const { bus } = await begin(t);
  for (const passthrough of ['off', 'on'] as const) {
    const image = await bus.bench.image(`${passthrough}.img`, FIO_DISK_BYTES);
    await bus.attach({ driver: 'ram', image, passthrough });
  }
  const { vbds, keeperPid, serverPid } = await bus.info();
  const runs = vbds.slice(1).map(({ path }) => new Verifier(bus.bench, path));
  await delay(700);
  process.kill(keeperPid as number, 'SIGKILL');
  process.kill(serverPid as number, 'SIGKILL');
  const begun = performance.now();
  // `end` is not called: the kill may come between two runs, and then the next run fails
  const [threads, passed] = await Promise.all(runs.map((run) => run.outcome));
  t.ok(performance.now() - begun < 15_000, 'both end');
  t.not(threads?.status, 0, 'fio on threads ends with an error');
  t.comment(`passed through: fio ended with ${passed?.status}`);
  await bus.bench.succeed(['stop']);
  t.same(await bus.bench.traces(), [], 'nothing is left');
});

t.test('the keeper dies while no server runs', { skip }, async (t) => {
  for (const delayMs of [0, 50, 150, 250]) {
    const { bus, vbd, image } = await begin(t);
    const client = await Client.open(t, bus.bench, 'read', vbd.path);
    const { keeperPid, serverPid } = await bus.info();
    process.kill(serverPid as number, 'SIGKILL');
    await delay(delayMs);
    process.kill(keeperPid as number, 'SIGKILL');
    const begun = performance.now();
    const said = await client.call('read', 0, 4096);
    t.match(said, /not connected|abort|^4096$/i, `${delayMs} ms after: an answer (${said})`);
    t.ok(performance.now() - begun < 5_000, 'soon');
    await client.release();
    await bus.bench.fusetap(['stop']);
    t.same(await bus.bench.traces(), [], 'nothing is left');
    t.equal((await bus.bench.fusetap(['attach', image])).status, 0);
    await bus.bench.succeed(['stop']);
  }
});

t.test('the keeper dies during an upgrade', { skip }, async (t) => {
  for (const delayMs of [0, 100, 200, 300]) {
    const { bus, vbd } = await begin(t);
    const client = await Client.open(t, bus.bench, 'read', vbd.path);
    const { keeperPid } = await bus.info();
    bus.upgrade().catch(() => {});
    await delay(delayMs);
    process.kill(keeperPid as number, 'SIGKILL');
    const said = await client.call('read', 0, 4096);
    t.match(said, /not connected|abort|^4096$/i, `${delayMs} ms after: an answer (${said})`);
    await client.release();
    await delay(300);
    await bus.bench.fusetap(['stop']);
    t.same(await bus.bench.traces(), [], 'nothing is left');
  }
});
