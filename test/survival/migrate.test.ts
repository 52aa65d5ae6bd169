/** A disk moves from a file to an NBD server, while fio writes and verifies, and while servers of the bus die. */
import t from 'tap';
import { nbdkit, uriOf, whyNoServers } from '../drivers/nbd/servers.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';

t.setTimeout(300_000);

t.test('from a file to a server', { skip: whyNot('fio', 'cmp') || whyNoServers() }, async (t) => {
  const bus = await startBus(t, { FUSETAP_EXPERIMENTAL: 'nbd' });
  const { bench } = bus;
  const image = await bench.image('here.img', FIO_DISK_BYTES);
  const server = nbdkit(bench.path('nbd.sock'), ['file', await bench.image('there.img', FIO_DISK_BYTES)]);
  t.teardown(() => server.kill());
  await server.start();
  const uri = uriOf(bench.path('nbd.sock'));
  const env = { FUSETAP_EXPERIMENTAL: 'nbd' };
  const { vdev, path } = await bus.attach({ driver: 'aio', image });
  const fio = new Verifier(bench, path);
  await bus.disturb(2, 'kill');
  await bench.succeed(['pause', vdev]);
  t.equal(await bench.succeed(['save', '--force', vdev, uri], { env }), uri);
  await bench.succeed(['swap', vdev, uri], { env });
  await bench.succeed(['resume', vdev]);
  await bus.disturb(2, 'kill');
  provesIntact(t, await fio.end(), 'no wrong byte, no error');
  t.match(await bench.list(), [{ driver: 'nbd' }]);
  const { vbds } = await bus.detach(vdev);
  t.equal(vbds[0]?.error, undefined, 'everything is durable');
  await bench.fusetap(['attach', bench.path('there.img')]);
});
