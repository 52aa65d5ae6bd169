/** Disks of several drivers on a real bus: what they share, what they forget, and what is known of them. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { startBus } from '../survival/bus.js';
import { eventually } from './command.js';
import { whyNot } from './fixtures.js';

t.setTimeout(240_000);
const MIB = 1 << 20;
const skip = whyNot();

t.test('snapshots of snapshots, and of a ram image', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const image = await bench.image('base.img', 4 * MIB, 4 * MIB);
  const base = readFileSync(image);
  const nested = await bench.attach(`snapshot:snapshot:${image}`);
  const one = await bench.attach('--snapshot', `ram:${image}`);
  const two = await bench.attach('--snapshot', `ram:${image}`);
  for (const path of [nested, one]) {
    t.equal(await bench.sh('cmp "$1" "$2"', path, image), '');
    await bench.sh('printf changed | dd of="$1" bs=1 seek=5000 conv=notrunc status=none', path);
  }
  t.equal(await bench.sh('cmp "$1" "$2"', two, image), '', 'another snapshot of the same memory does not see it');
  t.match(JSON.parse(await bench.succeed(['diff', 'xvda', '--json'])), { changes: [{ offset: 4096, length: 4096 }] });
  t.match(JSON.parse(await bench.succeed(['diff', 'xvdc', '--json'])), { changes: [] });
  const { images } = JSON.parse(await bench.succeed(['memory', '--json'])) as { images: { holders: object[] }[] };
  t.equal(images.length, 5, 'two for the nested ones, one for each of the others, and the ram image');
  t.equal(images.filter(({ holders }) => holders.length === 2).length, 1, 'which both have');
  for (const vdev of ['xvda', 'xvdb', 'xvdc']) await bench.detach(vdev);
  t.match(JSON.parse(await bench.succeed(['memory', '--json'])), { usedBytes: 0, images: [] });
  t.ok(readFileSync(image).equals(base), 'the image is as it was');
});

t.test('nobody writes to a ram image that is below another disk', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const image = await bench.image('base.img', MIB);
  await bench.attach('--snapshot', `ram:${image}`);
  for (const more of [[], ['--bus', 'other']]) {
    t.match(await bench.fusetap(['attach', ...more, `ram:${image}`]), { status: 4, stderr: /is below another disk/ });
    await bench.succeed(['attach', '-r', ...more, `ram:${image}`]);
  }
  await bench.succeed(['stop', '--all', '--force']);
  await bench.attach(`ram:${image}`);
  for (const more of [[], ['--bus', 'other']]) {
    const refused = await bench.fusetap(['attach', '--snapshot', ...more, `ram:${image}`]);
    t.match(refused, { status: 4, stderr: /a vbd of mode w has its ram image/ });
  }
  await bench.detach('xvda');
  await bench.attach('--snapshot', `ram:${image}`);
  await bench.detach('xvda');
  await bench.attach(`ram:${image}`);
  await bench.succeed(['stop', '--all', '--force']);
});

t.test('a copy of a tree is reset, and is found only if one file tells what it is', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const image = await bench.image('base.img', MIB, MIB);
  execFileSync('tar', ['-C', bench.path('.'), '-cf', bench.path('a.tar'), 'base.img']);
  await bench.attach(`ram:tar:${bench.path('a.tar')}`);
  await bench.sh('printf x | dd of="$1" conv=notrunc status=none', bench.path('runtime/bus/0/xvda'));
  await bench.succeed(['reset', 'xvda']);
  t.equal(await bench.sh('cmp "$1" "$2"', bench.path('runtime/bus/0/xvda'), image), '');
  t.match(await bench.fusetap(['attach', `ram:tar:${bench.path('a.tar')}`]), {
    status: 0,
    stderr: /shares the memory of xvda/,
  });
  const part = `split:${await bench.image('p.img.001', MIB)}`;
  for (let i = 0; i < 2; i++) t.match(await bench.fusetap(['attach', `ram:${part}`]), { status: 0, stderr: '' });
  const { images } = JSON.parse(await bench.succeed(['memory', '--json'])) as { images: object[] };
  t.equal(images.length, 3);
});

t.test(
  'memory below a driver that would write it makes the vbd mode r; no bytes are in two places',
  { skip },
  async (t) => {
    const { bench } = await startBus(t);
    const image = await bench.image('base.img', MIB, MIB);
    execFileSync('tar', ['-C', bench.path('.'), '-cf', bench.path('a.tar'), 'base.img']);
    t.match(await bench.fusetap(['attach', `tar:ram:${bench.path('a.tar')}`]), {
      status: 0,
      stderr: /xvda has mode r/,
    });
    t.equal(await bench.sh('cmp "$1" "$2"', bench.path('runtime/bus/0/xvda'), image), '');
    const twice = { disk: { driver: 'concat', on: { part0: { file: image }, part1: { file: image } } } };
    const other = { driver: 'ram', on: { file: { file: image } } };
    const memories = { disk: { driver: 'concat', on: { part0: other, part1: other } } };
    const config = async (disk: object): Promise<string> => {
      await bench.sh('printf %s "$2" > "$1"', bench.path('c.json'), JSON.stringify([{ mode: 'r', ...disk }]));
      return bench.path('c.json');
    };
    const refused = await bench.fusetap(['attach', '--config', await config({ ...twice, mode: 'w' })]);
    t.match(refused, { status: 2, stderr: /base\.img is in two places of the disk/ });
    await bench.succeed(['attach', '--config', await config(twice)]);
    await bench.succeed(['attach', '--config', await config(memories)]);
    t.equal(await bench.sh('cat "$1" "$1" | cmp - "$2"', image, bench.path('runtime/bus/0/xvdc')), '');
  },
);

t.test('a huge discard on a large snapshot answers soon', { skip: whyNot('fallocate') }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  execFileSync('truncate', ['-s', '4T', bench.path('huge.img')]);
  const path = await bench.attach('--snapshot', bench.path('huge.img'));
  const { restarts } = await bus.info();
  await bench.sh('fallocate -p -l 4T "$1"', path);
  await bench.sh('printf x | dd of="$1" bs=1 seek=3T conv=notrunc status=none', path);
  t.equal((await bus.info()).restarts, restarts);
});

t.test('reset forgets what was written; a resize is refused; a swap drops it', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const image = await bench.image('base.img', 4 * MIB, 4 * MIB);
  const path = await bench.attach('--snapshot', image);
  await bench.sh('printf changed | dd of="$1" conv=notrunc status=none', path);
  await bench.succeed(['reset', 'xvda']);
  t.equal(await bench.sh('cmp "$1" "$2"', path, image), '');
  t.match(await bench.fusetap(['resize', 'xvda']), { status: 6, stderr: /keeps its size: its driver is snapshot/ });
  await bench.sh('printf changed | dd of="$1" conv=notrunc status=none', path);
  await bench.succeed(['pause', 'xvda']);
  await bench.sh('cp "$1" "$2"', image, bench.path('copy.img'));
  await bench.succeed(['swap', 'xvda', bench.path('copy.img')]);
  await bench.succeed(['resume', 'xvda']);
  t.equal(await bench.sh('cmp "$1" "$2"', path, image), '');
  t.match(await bench.list(), [{ driver: 'aio' }]);
  t.match(JSON.parse(await bench.succeed(['memory', '--json'])), { images: [] });
});

t.test('a tree outlives its keeper, and others see what it uses', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const image = await bench.image('base.img', 4 * MIB, 4 * MIB);
  const path = await bench.attach('--snapshot', image);
  await bench.sh('printf changed | dd of="$1" conv=notrunc status=none', path);
  const { keeperPid } = await bus.info();
  process.kill(keeperPid as number, 'SIGKILL');
  await eventually('the server is an orphan', 20_000, async () => {
    return (await bus.info().catch(() => null))?.state === 'orphaned' || undefined;
  });
  t.equal(await bench.sh('head -c 7 "$1"', path), 'changed');
  t.match(await bench.list(), [{ driver: 'snapshot', image }]);
  const refused = await bench.fusetap(['attach', '--bus', 'other', image]);
  t.match(refused, { status: 4, stderr: /is attached with mode r by bus 0 as xvda/ }, 'the base is claimed');
  await bench.succeed(['stop', '--force']);
});

t.test('the limit of ram images counts what a snapshot writes', { skip }, async (t) => {
  const { bench } = await startBus(t, { FUSETAP_RAM_LIMIT: '2M' });
  const path = await bench.attach('--snapshot', await bench.image('base.img', 8 * MIB));
  const write = (offset: number, count: number) =>
    bench.execute('dd', [
      'if=/dev/urandom',
      `of=${path}`,
      'bs=64k',
      `seek=${offset}`,
      `count=${count}`,
      'conv=notrunc,fsync',
    ]);
  t.equal((await write(0, 16)).status, 0, '1 MiB fits');
  t.match(await write(16, 64), { status: 1, stderr: /No space left/ }, '4 MiB more do not');
  t.equal((await write(0, 16)).status, 0, 'what is in memory can be written again');
  t.equal((await bench.execute('cmp', ['-n', String(MIB), path, path])).status, 0);
});

t.test('members and pieces: written through, as tar and cat see it', { skip: whyNot('tar') }, async (t) => {
  const { bench } = await startBus(t);
  const image = await bench.image('disk.img', 4 * MIB, 4 * MIB);
  const folder = await bench.makeDirectory('pieces');
  execFileSync('split', ['-b', String(1.5 * MIB), '-d', '-a', '3', '--numeric-suffixes=1', image, `${folder}/d.img.`]);
  const path = await bench.attach(`split:${folder}/d.img.001`);
  await bench.sh(
    'printf written | dd of="$1" bs=1 seek=$2 conv=notrunc,fsync status=none',
    path,
    String(1.5 * MIB - 3),
  );
  await bench.detach('xvda');
  await bench.sh('printf written | dd of="$1" bs=1 seek=$2 conv=notrunc status=none', image, String(1.5 * MIB - 3));
  t.equal(await bench.sh('cat "$1"/d.img.* | cmp - "$2"', folder, image), '', 'over the end of a piece');
  execFileSync('tar', ['-C', bench.path('.'), '-cf', bench.path('box.ova'), 'disk.img']);
  const member = await bench.attach(`tar:${bench.path('box.ova')}`);
  await bench.sh('printf inside | dd of="$1" bs=1 seek=77 conv=notrunc,fsync status=none', member);
  await bench.detach('xvda');
  t.equal(await bench.sh('tar -xOf "$1" disk.img | tail -c +78 | head -c 6', bench.path('box.ova')), 'inside');
});
