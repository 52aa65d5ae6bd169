/**
 * The server is killed or upgraded again and again while fio writes, reads and compares. Clients see a pause, never an
 * error or wrong data.
 */
import t from 'tap';
import { diskOfWay, makeImage, TREES, WAYS, type Way } from '../../scripts/lib/torture/ways.js';
import { Client } from '../e2e/client.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';

t.setTimeout(300_000);

const KILLS = 10;
const UPGRADES = 3;

for (const way of [...WAYS, ...TREES] as readonly Way[]) {
  const { driver, passthrough } = way;
  const isOver = way.isOverlay ? ' over a base' : '';
  const name = `${driver}${isOver}, ${passthrough === 'on' ? 'passthrough' : 'threads'}`;
  void t.test(name, { skip: whyNot('fio') }, async (t) => {
    const bus = await startBus(t);
    await makeImage(way, bus.bench.path('disk.img'), FIO_DISK_BYTES);
    const disk = diskOfWay(way, bus.bench.path('disk.img'));
    const vbd = await ('disk' in disk
      ? bus.attachTree(disk.disk, { passthrough })
      : bus.attach({ ...disk, passthrough }));
    t.equal(vbd.passthrough, passthrough === 'on');
    const fio = new Verifier(bus.bench, vbd.path);
    await bus.disturb(KILLS, 'kill');
    await bus.disturb(UPGRADES, 'upgrade');
    provesIntact(t, await fio.end(), name);
    const { restarts, state } = await bus.info();
    t.equal(restarts, KILLS + UPGRADES);
    t.equal(state, 'running');
    await bus.detach(vbd.vdev);
  });
}

void t.test('a write that waits for resume is no evidence against the bus', { skip: whyNot() }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const vbd = await bus.attach({ driver: 'aio', image: await bench.image('disk.img', 1 << 20), passthrough: 'off' });
  const writer = await Client.open(t, bench, 'write', vbd.path);
  await bench.succeed(['pause', vbd.vdev]);
  const answer = writer.call('write', 0, 4096);
  for (let kills = 0; kills < 6; kills++) {
    const { restarts } = await bus.info();
    process.kill(await bus.serverPid(), 'SIGKILL');
    // the servers get no other requests either
    await eventually('the next server', 60_000, async () => {
      const { state, restarts: now } = await bus.info();
      if (state === 'failed') throw new Error('the bus was given up');
      return (state === 'running' && now > restarts) || undefined;
    });
  }
  await bench.succeed(['resume', vbd.vdev]);
  t.equal(await answer, '4096');
  await writer.release();
  await bus.detach(vbd.vdev);
});
