/** A thread of the server works on one request for ever: this is noticed, and the next server answers the request. */
import t from 'tap';
import { WRITE } from '../../mount/fuse/protocol/abi.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';
import { Crashes } from './crashes.js';

t.setTimeout(60_000);

void t.test('a thread that spins', { skip: whyNot() }, async (t) => {
  const crashes = new Crashes();
  const bus = await startBus(t, { ...crashes.env, FUSETAP_SILENCE_LIMIT_MS: '1500' });
  const { bench } = bus;
  const vbd = await bus.attach({ driver: 'aio', image: await bench.image('disk.img', 1 << 20) });
  const first = await bus.serverPid();
  crashes.arm('io', WRITE, 1, 'spin');
  await bench.sh('printf hello | dd of="$1" conv=notrunc status=none', vbd.path);
  t.equal(crashes.left(), 0, 'it did spin');
  t.equal(await bench.sh('head -c 5 "$1"', vbd.path), 'hello');
  t.not(await bus.serverPid(), first, 'the server was replaced');
  t.match(await bus.log(), /server-spins/);
});
