/**
 * `fusetap save VBD SPEC`: a disk of the same size becomes a copy, whole and durable. What is there is not lost by
 * mistake, and a server that dies meanwhile changes nothing.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { startBus } from '../survival/bus.js';
import { eventually } from './command.js';
import { whyNot } from './fixtures.js';
import { killServer } from './kill-server.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const skip = whyNot('qemu-img', 'cmp', 'dd');

t.test('an image with a format', { skip }, async (t) => {
  const { bench } = await startBus(t);
  await bench.image('disk.img', 16 * MIB, 3 * MIB);
  await bench.attach(bench.path('disk.img'));
  await bench.succeed(['create', '--format', 'qcow2', bench.path('copy.qcow2'), '16M']);
  t.equal(await bench.succeed(['save', 'xvda', `qcow2:${bench.path('copy.qcow2')}`]), bench.path('copy.qcow2'));
  await bench.succeed(['detach', 'xvda']);
  await bench.sh('qemu-img check -q copy.qcow2; qemu-img compare -q -f qcow2 -F raw copy.qcow2 disk.img');
  await bench.attach(bench.path('disk.img'));
  const json = await bench.succeed(['save', '--json', '--force', 'xvda', `qcow2:${bench.path('copy.qcow2')}`]);
  t.same(JSON.parse(json), { path: bench.path('copy.qcow2'), size: 16 * MIB });
});

t.test('what is on the target is not lost by mistake', { skip }, async (t) => {
  const { bench } = await startBus(t);
  await bench.image('disk.img', 8 * MIB, 2 * MIB);
  await bench.image('old.img', 8 * MIB, 8 * MIB);
  await bench.attach(bench.path('disk.img'));
  await bench.sh('cp old.img before.img');
  const spec = `aio:${bench.path('old.img')}`;
  t.match(await bench.fusetap(['save', 'xvda', spec]), { status: 4, stderr: /has data already.*--force/ });
  await bench.sh('cmp old.img before.img');
  await bench.succeed(['save', '--force', 'xvda', spec]);
  await bench.sh('cmp old.img disk.img');
  t.equal(await bench.sh('stat -c %s old.img'), `${8 * MIB}`);
});

t.test('what cannot be a copy is refused, and nothing stays in use', { skip }, async (t) => {
  const { bench } = await startBus(t);
  await bench.image('disk.img', 8 * MIB, 2 * MIB);
  await bench.image('small.img', 4 * MIB);
  await bench.image('other.img', 8 * MIB);
  await bench.sh('qemu-img create -q -f vhdx read.vhdx 8M');
  await bench.attach(bench.path('disk.img'));
  const refused: [spec: string, status: number, stderr: RegExp, ...options: string[]][] = [
    ['aio:small.img', 2, /has 8388608 bytes, but the target has 4194304/],
    ['aio:none.img', 3, /none\.img/],
    ['aio:disk.img', 4, /disk\.img/],
    ['ram:other.img', 2, /in memory only/],
    ['snapshot:other.img', 2, /in memory only/],
    ['vhdx:read.vhdx', 5, /./],
    ['nosuch+driver://x', 3, /./],
    ['aio:other.img,xvdb,w', 2, /no place on the bus/],
    ['other.img', 2, /--option is for a disk/, '--option', 'a=b'],
    ['other.img', 2, /--backing is for a disk/, '--backing', 'any'],
  ];
  for (const [spec, status, stderr, ...options] of refused) {
    t.match(
      await bench.fusetap(['save', ...options, 'xvda', spec.replace(/(\w+\.\w+)/, bench.path('$1'))]),
      { status, stderr },
      spec,
    );
  }
  // a program that locks its image, as QEMU does, is asked for each
  await bench.sh('for f in small other; do qemu-io -f raw -c "write 0 512" $f.img; done');
  t.equal((await bench.list()).length, 1);
});

t.test('a word that no driver has is a file', { skip }, async (t) => {
  const { bench } = await startBus(t);
  await bench.image('disk.img', MIB, MIB);
  await bench.attach(bench.path('disk.img'));
  for (const name of ['10:30.img', './aio:x']) {
    await bench.succeed(['save', 'xvda', name], { cwd: bench.directory });
    await bench.sh('cmp disk.img "$1"', name);
  }
});

for (const driver of ['aio', 'qcow2']) {
  t.test(`a server that dies while it copies: the next one copies again (${driver})`, { skip }, async (t) => {
    const bus = await startBus(t);
    const { bench } = bus;
    await bench.image('disk.img', 32 * MIB, 32 * MIB);
    if (driver === 'aio') await bench.image('copy.img', 32 * MIB);
    else await bench.succeed(['create', '--format', 'qcow2', bench.path('copy.img'), '32M']);
    const blocks = async (): Promise<number> => Number(await bench.sh('stat -c %b copy.img'));
    const before = await blocks();
    const slow = { filters: [{ name: 'delay', value: '60' }] };
    await bus.attach({ driver: 'aio', image: bench.path('disk.img'), ...slow });
    const saving = bench.startFusetap(['save', '--quiet', 'xvda', `${driver}:${bench.path('copy.img')}`]);
    const ended = new Promise<number | null>((resolve) => saving.on('exit', resolve));
    for (let kills = 0; kills < 2; kills++) {
      await eventually('it copies', 30_000, async () => (await blocks()) > before + 4096 * kills);
      await killServer(bench);
    }
    t.equal(await ended, 0);
    await bench.succeed(['detach', 'xvda']);
    if (driver === 'aio') await bench.sh('cmp copy.img disk.img');
    else
      await bench.sh('qemu-img check -q copy.img || [ $? = 3 ]; qemu-img compare -q -f qcow2 -F raw copy.img disk.img');
  });
}

t.test('a copy that is given up leaves the bus as it was', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  await bench.image('disk.img', 32 * MIB, 32 * MIB);
  await bench.image('copy.img', 32 * MIB);
  const slow = { filters: [{ name: 'delay', value: '60' }] };
  const { path } = await bus.attach({ driver: 'aio', image: bench.path('disk.img'), ...slow });
  const saving = bench.startFusetap(['save', '--quiet', 'xvda', `aio:${bench.path('copy.img')}`]);
  const ended = new Promise((resolve) => saving.on('exit', resolve));
  await eventually('it copies', 30_000, async () => Number(await bench.sh('stat -c %b copy.img')) > 0);
  const writing = bench.sh('printf x | dd of="$1" conv=notrunc status=none', path);
  await delay(200);
  saving.kill('SIGINT');
  await ended;
  await writing;
  await eventually('the target is free', 30_000, async () => {
    return (await bench.fusetap(['attach', bench.path('copy.img'), 'xvdb'])).status === 0;
  });
});

t.test('a copy to a file system that is mounted from the vbd', { skip: whyNot('mkfs.ext4', 'losetup') }, async (t) => {
  const { bench } = await startBus(t);
  await bench.image('disk.img', 32 * MIB);
  await bench.sh('mkfs.ext4 -q disk.img; mkdir m');
  const path = await bench.attach(bench.path('disk.img'));
  await bench.sh('mount -o loop "$1" m; truncate -s 32M m/there.img', path);
  for (const target of ['m/copy.img', 'aio:m/there.img']) {
    const refused = await bench.fusetap(['save', 'xvda', target], { cwd: bench.directory });
    t.match(refused, { status: 4, stderr: /mounted from xvda itself/ }, target);
  }
  await bench.sh('umount m');
});
