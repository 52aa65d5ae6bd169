/** A disk moves from a file to an NBD server, while fio writes and verifies, and while servers of the bus die. */
import t, { type Test } from 'tap';
import { type NbdServer, nbdkit, uriOf, whyNoServers } from '../drivers/nbd/servers.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { type Bus, startBus } from './bus.js';
import { FIO_DISK_BYTES, provesIntact, Verifier } from './fio.js';

t.setTimeout(300_000);

t.test('from a file to a server', { skip: whyNot('fio', 'cmp') || whyNoServers() }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const image = await bench.image('here.img', FIO_DISK_BYTES);
  const server = nbdkit(bench.path('nbd.sock'), ['file', await bench.image('there.img', FIO_DISK_BYTES)]);
  t.teardown(() => server.kill());
  await server.start();
  const uri = uriOf(bench.path('nbd.sock'));
  const { vdev, path } = await bus.attach({ driver: 'aio', image });
  const fio = new Verifier(bench, path);
  await bus.disturb(2, 'kill');
  await bench.succeed(['pause', vdev]);
  t.equal(await bench.succeed(['save', '--force', vdev, uri]), uri);
  await bench.succeed(['swap', vdev, uri]);
  await bench.succeed(['resume', vdev]);
  await bus.disturb(2, 'kill');
  provesIntact(t, await fio.end(), 'no wrong byte, no error');
  t.match(await bench.list(), [{ driver: 'nbd' }]);
  const { vbds } = await bus.detach(vdev);
  t.equal(vbds[0]?.error, undefined, 'everything is durable');
  await bench.fusetap(['attach', bench.path('there.img')]);
});

const SLOW = { filters: [{ name: 'delay', value: '60' }] };

interface Copying {
  readonly bus: Bus;
  readonly server: NbdServer;
  readonly path: string;
  /** the exit status of `save` */
  readonly ended: Promise<number | null>;
  interrupt(): void;
}

/** A slow copy to an NBD server that forgets all when it is killed. */
async function copying(t: Test): Promise<Copying> {
  const bus = await startBus(t);
  const { bench } = bus;
  const server = nbdkit(bench.path('nbd.sock'), ['--verbose', 'memory', '32M']);
  t.teardown(() => server.kill());
  await server.start();
  const image = await bench.image('here.img', 32 << 20, 32 << 20);
  const { path } = await bus.attach({ driver: 'aio', image, ...SLOW });
  const saving = bench.startFusetap(['save', '--quiet', '--force', 'xvda', uriOf(bench.path('nbd.sock'))], {});
  const ended = new Promise<number | null>((resolve) => saving.on('exit', resolve));
  const spec = ['nbdinfo', '--map', '--totals', uriOf(bench.path('nbd.sock'))];
  await eventually('it copies', 60_000, async () => / data/.test(await bench.sh('"$@"', ...spec)));
  return { bus, server, path, ended, interrupt: () => saving.kill('SIGINT') };
}

const withNbdinfo = { skip: whyNot('nbdinfo') || whyNoServers() };

t.test('a server that is stopped: the copy can be given up, and the vbd goes on', withNbdinfo, async (t) => {
  const { bus, server, path, ended, interrupt } = await copying(t);
  await server.pause();
  const reading = bus.bench.sh('printf x | dd of="$1" conv=notrunc,fsync status=none', path);
  interrupt();
  t.not(await ended, 0);
  await reading;
  server.resume();
});

t.test('a server that loses what it had acknowledged: the copy fails', withNbdinfo, async (t) => {
  const { server, ended } = await copying(t);
  await server.kill();
  await server.start();
  t.equal(await ended, 1);
});
