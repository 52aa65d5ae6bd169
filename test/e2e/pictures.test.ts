/** `map --svg`, `diff` of images, of vbds and of both, and `show --tree` of a chain, on real images. */
import { readFile } from 'node:fs/promises';
import t from 'tap';
import { qemuImg, qemuIo, whyNoQemu } from '../drivers/qemu.js';
import { startBus } from '../survival/bus.js';
import { type Bench, whyNot } from './fixtures.js';

const skip = whyNot() || whyNoQemu();
const MIB = 2 ** 20;
t.setTimeout(300_000);

/** A raw image, and an overlay that differs from it. */
async function makeOverlay(bench: Bench): Promise<{ base: string; top: string }> {
  const base = await bench.image('base.img', 8 * MIB, 4 * MIB);
  const top = bench.path('top.qcow2');
  qemuImg('create', '-q', '-f', 'qcow2', '-F', 'raw', '-b', 'base.img', top);
  qemuIo('qcow2', top, 'write -P 7 1M 128k');
  qemuIo('qcow2', top, 'write -z 3M 64k');
  return { base, top };
}

const DIFFERENT = [
  `${MIB} ${128 * 1024} data`,
  `${3 * MIB} ${64 * 1024} zeros`,
  'total 196608 (192K): 131072 data, 65536 zeros',
].join('\n');

t.test('a picture goes to a new file, and replaces only a picture', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const { top } = await makeOverlay(bench);
  const svg = await bench.succeed(['map', top, '--svg']);
  t.match(svg, /^<svg /);
  t.match(svg, 'data, depth 0: 128K in ');
  t.match(svg, 'data, depth 1: 3.8M in ');
  const file = bench.path('top.svg');
  t.equal(await bench.succeed(['map', top, '--svg', file]), '');
  t.equal(await readFile(file, 'utf8'), `${svg}\n`);
  t.match(await bench.fusetap(['map', top, '--svg', file]), { status: 4, stderr: /top\.svg exists/ });
  await bench.succeed(['map', top, '--force', '--svg', file]);
  await bench.sh('cp "$1" before', top);
  for (const force of [[], ['--force']]) {
    t.match(await bench.fusetap(['map', top, ...force, '--svg', top]), { status: 4, stdout: '' }, 'an image stays');
  }
  await bench.sh('ln -s "$1" link.svg', file);
  t.match(await bench.fusetap(['map', top, '--force', '--svg', 'link.svg']), { status: 4 }, 'a link stays');
  await bench.sh('cmp "$1" before', top);
  t.match(await bench.fusetap(['map', top, '--svg', bench.path('no/such.svg')]), { status: 1, stderr: /no\/such/ });
  t.match(await bench.fusetap(['map', top, '--json', '--svg']), { status: 2 });
  t.same(await bench.sh('ls'), 'base.img\nbefore\nlink.svg\nruntime\ntop.qcow2\ntop.svg', 'nothing is left');
});

t.test('diff: an image and its backing file, two images, a vbd and an image', { skip }, async (t) => {
  const { bench } = await startBus(t);
  const { base, top } = await makeOverlay(bench);
  t.equal(await bench.succeed(['diff', top]), DIFFERENT, 'its backing file');
  t.match(await bench.fusetap(['diff', base]), { status: 6, stderr: /no backing file/ });
  t.equal(await bench.succeed(['diff', base, top]), DIFFERENT, 'bytes');
  t.match(JSON.parse(await bench.succeed(['diff', '--json', top, base])), {
    ...{ bus: null, vdev: null, size: 8 * MIB, dataBytes: 196608, zerosBytes: 0 },
  });
  t.match(await bench.succeed(['diff', base, top, '--svg']), 'differs from ');
  t.equal(await bench.succeed(['diff', top, top]), 'total 0 (0): 0 data, 0 zeros');
  await bench.image('long.img', 9 * MIB, 4 * MIB);
  t.equal(await bench.succeed(['diff', base, 'long.img']), 'total 0 (0): 0 data, 0 zeros', 'zeros follow');
  await bench.sh('printf x | dd of=long.img bs=1 seek=9437183 conv=notrunc status=none');
  t.match(await bench.succeed(['diff', base, 'long.img']), `${9 * MIB - 4096} 4096 data\n`);

  await bench.attach(`qcow2:${top}`);
  t.equal(await bench.succeed(['diff', 'xvda']), DIFFERENT, 'a vbd over a backing file');
  await bench.detach('xvda');
  const path = await bench.attach(`ram:${base}`);
  t.equal(await bench.succeed(['diff', base, 'xvda']), 'total 0 (0): 0 data, 0 zeros', 'a copy');
  await bench.sh('printf x | dd of="$1" bs=1 seek=5000 conv=notrunc status=none', path);
  for (const word of ['xvda', path]) {
    t.match(await bench.succeed(['diff', base, word]), '4096 4096 data\n', `the path of the image is not ${word}`);
  }
  await bench.attach('--snapshot', base);
  t.match(await bench.succeed(['diff', 'xvda', 'xvdb']), '4096 4096 data\n', 'two vbds');
  t.match(await bench.succeed(['diff', 'xvda', base]), '4096 4096 data\n', 'several vbds have the image');
  await bench.succeed(['pause', 'xvda']);
  t.match(await bench.fusetap(['diff', base, 'xvda']), { status: 4, stderr: /xvda is paused/ });
  await bench.succeed(['resume', 'xvda']);
});

t.test('a snapshot: what was written is marked, and partitions', { skip: skip || whyNot('sfdisk') }, async (t) => {
  const { bench } = await startBus(t);
  const image = await bench.image('parts.img', 16 * MIB);
  await bench.sh('printf \'label: gpt\\n,4M,,\\n,,\\n\' | sfdisk -q "$1"', image);
  t.match(await bench.succeed(['map', image, '--svg']), /partitions: 1, 4M at 1M; 2, 10M at 5M/, 'without a bus');
  const path = await bench.attach('--snapshot', '--partitions', image);
  t.match(await bench.succeed(['map', 'xvda', '--svg']), /written since the attach: 0</);
  await bench.sh('printf x | dd of="$1" bs=1 seek=5000000 conv=notrunc status=none', path);
  const svg = await bench.succeed(['map', 'xvda', '--svg']);
  t.match(svg, /written since the attach: 4K</);
  t.match(svg, 'data, depth 0: 4K in memory');
  t.match(svg, /partitions: xvda1, 4M at 1M; xvda2, 10M at 5M/);
  t.match(await bench.succeed(['diff', 'xvda', '--svg']), /written since the attach: 4K</);
});

t.test('a chain of 30 in show --tree', { skip }, async (t) => {
  const { bench } = await startBus(t);
  await bench.image('29.img', MIB, MIB);
  let below = ['-F', 'raw', '-b', '29.img'];
  for (let at = 28; at >= 0; at--) {
    qemuImg('create', '-q', '-f', 'qcow2', ...below, bench.path(`${at}.qcow2`));
    below = ['-F', 'qcow2', '-b', `${at}.qcow2`];
  }
  await bench.attach(`qcow2:${bench.path('0.qcow2')}`);
  const lines = (await bench.succeed(['show', '--tree'], { env: { LC_ALL: 'C' } })).split('\n');
  t.match(lines, [/^bus 0/, /keeper/, /server/, /`-xvda, 1M/, /^ {2}`-30 images$/]);
  t.equal(lines[5], `    |-0 qcow2 ${bench.path('0.qcow2')}`);
  t.equal(lines[6], '    |-1 qcow2 1.qcow2');
  t.equal(lines.at(-1), '    `-29 aio 29.img');
  const svg = await bench.succeed(['map', 'xvda', '--svg']);
  t.match(svg, `data, depth 7 and deeper: 1M in ${bench.path('29.img')}`);
});
