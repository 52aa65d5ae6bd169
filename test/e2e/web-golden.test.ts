/** `ram:https://…`: a shared ram image that is copied from a web server (nginx) once. */
import { copyFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { WebServer, whyNoWeb } from '../drivers/https/web-server.js';
import { eventually } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { replaceServer } from './kill-server.js';

t.setTimeout(240_000);

const SIZE = 8 << 20;

if (whyNoWeb() !== false) t.test('nginx', { skip: whyNoWeb() }, (t) => t.end());
else
  onDefaultTransport(t, ['cmp', 'dd', 'qemu-img'], async (t, transport) => {
    await t.test('shared, and without the web server then', async (t) => share(t, await openBench(t, transport)));
    await t.test('copied again', async (t) => reset(t, await openBench(t, transport)));
    await t.test('an image with a format', async (t) => format(t, await openBench(t, transport)));
    await t.test('what cannot be copied', async (t) => refuse(t, await openBench(t, transport)));
  });

async function serve(t: Test, bench: Bench): Promise<{ server: WebServer; image: string }> {
  await bench.makeDirectory('www');
  const image = await bench.image('www/disk.img', SIZE, SIZE / 2);
  const server = await WebServer.start(bench.directory);
  t.teardown(() => server.end());
  return { server, image };
}

async function share(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  const spec = `ram:${server.url('disk.img')}`;
  const first = await bench.attach(spec, 'xvda');
  await bench.sh('cmp "$1" "$2"', first, image);
  t.match(JSON.parse(await bench.succeed(['memory', '--json'])), {
    images: [{ image: server.url('disk.img'), configuredBytes: SIZE, holders: [{ vdev: 'xvda' }] }],
  });
  await server.end();
  t.match(await bench.fusetap(['attach', spec, 'xvdb']), { status: 0, stderr: /shares the memory of xvda of bus 0/ });
  const second = first.replace(/xvda$/, 'xvdb');
  await bench.sh('printf changed | dd of="$1" conv=notrunc,fsync status=none; cmp "$1" "$2"', first, second);
  await replaceServer(bench);
  t.equal(await bench.sh('head -c 7 "$1"', second), 'changed', 'a new server does not need the web server');
  await bench.detach('xvda');
  await bench.detach('xvdb');
  t.same(await bench.traces(), []);
}

async function reset(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  const path = await bench.attach(`ram:${server.url('disk.img')}`, 'xvda');
  await bench.sh('printf changed | dd of="$1" conv=notrunc status=none', path);
  await bench.image('other.img', SIZE, SIZE);
  await copyFile(bench.path('other.img'), image);
  await bench.succeed(['reset', 'xvda']);
  await bench.sh('cmp "$1" other.img', path);
  await server.end();
  t.equal((await bench.fusetap(['reset', 'xvda'])).status, 3, 'without the web server the memory stays');
  await bench.sh('cmp "$1" other.img', path);
  await bench.detach('xvda');
}

async function format(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  await bench.sh('qemu-img convert -O qcow2 "$1" www/disk.qcow2', image);
  const path = await bench.attach(`ram:qcow2:${server.url('disk.qcow2')}`, 'xvda');
  await bench.sh('cmp "$1" "$2"', path, image);
  // another tree over the same URL is other memory, also after a reset
  const raw = await bench.attach('--raw', `ram:${server.url('disk.qcow2')}`, 'xvdb');
  await bench.sh('cmp "$1" www/disk.qcow2; printf changed | dd of="$1" conv=notrunc status=none', raw);
  await bench.succeed(['reset', 'xvda']);
  await bench.sh('cmp "$1" "$2"', path, image);
  t.equal(await bench.sh('head -c 7 "$1"', raw), 'changed');
  for (const vdev of ['xvda', 'xvdb']) await bench.detach(vdev);
}

async function refuse(t: Test, bench: Bench): Promise<void> {
  const { server } = await serve(t, bench);
  t.match(await bench.fusetap(['attach', `ram:${server.url('none.img')}`]), { status: 3, stderr: /404/ });
  t.match(await bench.fusetap(['attach', `qcow2:${server.url('disk.img')}`]), { status: 6, stderr: /cannot be over/ });
  const limited = { env: { FUSETAP_RAM_LIMIT: '1M' } };
  const refused = await bench.fusetap(['attach', '--bus', 'small', `ram:${server.url('disk.img')}`], limited);
  t.match(refused, { status: 7, stderr: /memory/ });
  await eventually('nothing is left', 30_000, async () => (await bench.traces()).length === 0);
}
