/** Vbds that their bus detaches by itself when nobody uses them any more, among them those that `fusetap mount` attached. */
import t from 'tap';
import { detach, resolveBus } from '../../mount/client/index.js';
import { detachWhenUnused } from '../../mount/file-system/detach-when-unused.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { type Bench, forEachTransport, onDefaultTransport, openBench } from './fixtures.js';
import { killServer, replaceServer } from './kill-server.js';
import { ext4, MAKERS, twoPartitions } from './mount-images.js';

t.setTimeout(300_000);

const MIB = 1 << 20;

/** Waits for the end of all buses: their processes, mounts and files are gone. */
async function awaitEnd(bench: Bench): Promise<void> {
  await eventually('the end of the bus', 60_000, async () => (await bench.traces()).length === 0, 20);
}

async function mark(bench: Bench, vdev: string): Promise<void> {
  await detachWhenUnused(await resolveBus('0', bench.runtimeDir), vdev);
}

forEachTransport(t, [], async (t, transport) => {
  const bench = await openBench(t, transport);
  await t.test('the last of its users takes it along, and the bus with it', async (t) => {
    await bench.attach(await bench.image('a.img', MIB), 'xvda');
    const path = await bench.attach(await bench.image('b.img', MIB), 'xvdb');
    const clients = [await Client.open(t, bench, 'write', path), await Client.open(t, bench, 'read', path)];
    await mark(bench, 'xvdb');
    t.match(await bench.list(), [{ vdev: 'xvda', detachesWhenUnused: false }, { detachesWhenUnused: true }]);
    await clients[0]?.call('write', 0, 4096, 'y');
    await clients[0]?.release();
    t.equal(await clients[1]?.call('text', 0, 4), 'yyyy', 'one of two users has left');
    await clients[1]?.release();
    await eventually('its detach', 60_000, async () => (await bench.list()).length === 1);
    t.match(await bench.list(), [{ vdev: 'xvda' }], 'the others stay');
    t.equal(await bench.sh('head -c 4 b.img'), 'yyyy');
    t.match(await bench.succeed(['log']), / detached vdev=xvdb .*\n.* unused vdev=xvdb/);
    await mark(bench, 'xvda');
    await awaitEnd(bench);
    t.pass('one that nobody uses goes at once');
  });
});

onDefaultTransport(t, [], async (t, transport) => {
  await t.test('it outlives servers, and goes with its last user', async (t) => {
    const bench = await openBench(t, transport);
    const path = await bench.attach(await bench.image('a.img', MIB));
    const client = await Client.open(t, bench, 'read', path);
    const mapped = await Client.open(t, bench, 'map', path);
    await mark(bench, 'xvda');
    await replaceServer(bench);
    await replaceServer(bench);
    t.equal(await client.call('read', 0, 512), '512');
    await client.release();
    t.match(await bench.list(), [{ detachesWhenUnused: true }], 'it is mapped');
    await mapped.release();
    await awaitEnd(bench);
  });

  await t.test('a client that detaches it comes first', async (t) => {
    const bench = await openBench(t, transport);
    const path = await bench.attach(await bench.image('a.img', MIB));
    const client = await Client.open(t, bench, 'path', path);
    await mark(bench, 'xvda');
    const detaching = detach(await resolveBus('0', bench.runtimeDir), 'xvda', { waitSeconds: 60 });
    await client.release();
    t.match(await detaching, { vbds: [{ vdev: 'xvda', detachesWhenUnused: true }], ended: true });
    await awaitEnd(bench);
  });

  await t.test('a flush that fails is in the log, which stays', async (t) => {
    const bench = await openBench(t, transport);
    const path = await bench.attach('--filter', 'error=flush', await bench.image('a.img', MIB));
    const client = await Client.open(t, bench, 'write', path);
    await client.call('write', 0, 512);
    await mark(bench, 'xvda');
    await client.release();
    await eventually('the end of the bus', 60_000, async () => (await bench.busProcesses()).length === 0);
    t.match(await bench.succeed(['log']), /not-durable bus="0" vdev=xvda image=\S+a\.img reason=/);
  });
});

onDefaultTransport(t, MAKERS, async (t, transport) => {
  await t.test('a plain umount ends what mount began, also if the server is killed meanwhile', async (t) => {
    const bench = await openBench(t, transport);
    const image = await ext4(bench, 'disk.img');
    const at = await bench.makeDirectory('mnt');
    await bench.succeed(['mount', image, at]);
    await bench.sh('echo 1 > "$1/written"', at);
    await killServer(bench, 'mounts');
    await bench.sh('umount "$1"', at);
    await awaitEnd(bench);
    t.same(await bench.loops(), []);
    t.match(await bench.sh('e2fsck -fn "$1" 2>&1; debugfs -R "ls -p" "$1" 2>&1', image), /\/written\//);
  });

  await t.test('of two partitions, the last one takes the vbd along', async (t) => {
    const bench = await openBench(t, transport);
    const image = await twoPartitions(bench, 'pi.img');
    const [one, two] = [await bench.makeDirectory('one'), await bench.makeDirectory('two')];
    await bench.succeed(['mount', '--partition', '1', image, one]);
    await bench.succeed(['mount', '--partition', '2', image, two]);
    await bench.sh('umount "$1"', one);
    await replaceServer(bench, { bus: 'mounts' });
    await bench.sh('echo 1 > "$1/written"; sync -f "$1"', two);
    t.match(await bench.list(), [{ image, opens: 0, partitions: [{ opens: 0 }, { opens: 1 }] }]);
    await bench.sh('umount "$1"', two);
    await awaitEnd(bench);
  });

  await t.test('a program that only looks at it keeps it until it closes it', async (t) => {
    const bench = await openBench(t, transport);
    const at = await bench.makeDirectory('mnt');
    await bench.succeed(['mount', await ext4(bench, 'disk.img'), at]);
    const looker = await Client.open(t, bench, 'read', `${bench.runtimeDir}/bus/mounts/xvda`);
    const kept = await bench.fusetap(['umount', at]);
    t.match(kept, { status: 0, stderr: /xvda of bus mounts stays attached until nobody uses it: .*\(perl\)/ });
    await looker.release();
    await awaitEnd(bench);
  });

  await t.test('a mount that is killed leaves nothing', async (t) => {
    const bench = await openBench(t, transport);
    const at = await bench.makeDirectory('mnt');
    await ext4(bench, 'disk.img');
    // the program that mounts waits, and is killed with the command
    await bench.sh('mkdir bin; printf "#!/bin/sh\necho \\$\\$ > pid; exec sleep 60\n" > bin/mount; chmod +x bin/mount');
    const env = { PATH: `${bench.path('bin')}:${process.env.PATH}` };
    const mounting = bench.startFusetap(['mount', 'disk.img', at], { env });
    await eventually('the program', 30_000, async () => (await bench.try('test -s pid')).status === 0);
    const [loop = ''] = await bench.loops();
    mounting.kill('SIGKILL');
    await bench.sh('kill $(cat pid); losetup -d "$1"', loop);
    await awaitEnd(bench);
    t.same(await bench.loops(), []);
  });
});
