/** Images on a web server (nginx) as vbds: read, under kills of the bus's server and of the web server, and with writes in memory. */
import { renameSync } from 'node:fs';
import { copyFile } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { WebServer, whyNoWeb } from '../drivers/https/web-server.js';
import { eventually } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { killServer, replaceServer } from './kill-server.js';

t.setTimeout(300_000);

const SIZE = 24 << 20;

if (whyNoWeb() !== false) t.test('nginx', { skip: whyNoWeb() }, (t) => t.end());
else
  onDefaultTransport(t, ['cmp', 'mkfs.ext4'], async (t, transport) => {
    await t.test('reads', async (t) => read(t, await openBench(t, transport)));
    await t.test('the web server goes away', async (t) => outlive(t, await openBench(t, transport)));
    await t.test('another file under the same name', async (t) => replace(t, await openBench(t, transport)));
    await t.test('a snapshot over it', async (t) => snapshot(t, await openBench(t, transport)));
    for (const options of [[], ['--snapshot']]) {
      const name = ['an end by force while a read waits', ...options].join(', ');
      await t.test(name, async (t) => endByForce(t, await openBench(t, transport), options));
    }
    await t.test('an end while the web server is away', async (t) => endWhileAway(t, await openBench(t, transport)));
    await t.test('a web server that hangs', async (t) => hang(t, await openBench(t, transport)));
  });

interface Web {
  readonly server: WebServer;
  /** what it serves as disk.img */
  readonly image: string;
}

async function serve(t: Test, bench: Bench): Promise<Web> {
  await bench.makeDirectory('www');
  const image = await bench.image('www/disk.img', SIZE, SIZE);
  const server = await WebServer.start(bench.directory);
  t.teardown(() => server.end());
  return { server, image };
}

async function read(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  const url = server.url('disk.img');
  const path = await bench.attach(url, 'xvda', 'r');
  t.match(await bench.succeed(['ls']), new RegExp(`https .* r .* ${url}`), 'ls shows the URL');
  await bench.sh('cmp "$1" "$2"', path, image);
  t.match(await bench.fusetap(['attach', url, 'xvdb', 'w']), { status: 5, stderr: /cannot be written.*--snapshot/ });
  const twice = await bench.attach('--option', 'cache=1M', url, 'xvdb', 'r');
  const reading = bench.sh(
    'for i in 1 2 3; do dd if="$1" bs=64k iflag=direct status=none | cmp - "$2"; done',
    twice,
    image,
  );
  for (let kills = 0; kills < 3; kills++) await replaceServer(bench);
  await reading;
  await bench.detach('xvdb');
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

async function outlive(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  const path = await bench.attach('--option', 'timeout=never', server.url('disk.img'), 'xvda', 'r');
  await server.end();
  const reading = bench.sh('cmp "$1" "$2"', path, image);
  await delay(3_000);
  t.match(await bench.succeed(['ls']), /reconnecting/);
  await server.begin();
  await reading;
  t.match(await bench.succeed(['log']), /reconnecting .*reconnected /s);
  await bench.detach('xvda');
}

async function replace(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  const path = await bench.attach('--option', 'cache=1M', server.url('disk.img'), 'xvda', 'r');
  const old = bench.path('old.img');
  await copyFile(image, old);
  await bench.sh('dd if="$1" of=/dev/null bs=1M count=2 iflag=direct status=none', path);
  const next = await bench.image('www/next.img', SIZE);
  renameSync(next, image);
  const { status, stderr } = await bench.try('cmp "$1" "$2"', path, old);
  t.equal(status, 2, stderr);
  t.match(stderr, /Input\/output error/, 'an error, no byte of the other file');
  t.match(await bench.succeed(['show', 'xvda']), /replaced/);
  await bench.detach('xvda');
}

async function snapshot(t: Test, bench: Bench): Promise<void> {
  const { server, image } = await serve(t, bench);
  await bench.sh('mkfs.ext4 -q -F "$1"', image);
  const path = await bench.attach('--snapshot', server.url('disk.img'));
  await bench.sh('echo precious | dd of="$1" bs=1 seek=1048576 conv=notrunc,fsync status=none', path);
  await killServer(bench);
  t.equal(await bench.sh('dd if="$1" bs=1 skip=1048576 count=8 status=none', path), 'precious');
  await bench.sh('dd if="$1" bs=64k count=8 status=none | cmp -n 524288 - "$2"', path, image);
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}

/** A takeover does not wait for it. */
async function hang(t: Test, bench: Bench): Promise<void> {
  const { server } = await serve(t, bench);
  await bench.attach('--option', 'timeout=never', server.url('disk.img'), 'xvda', 'r');
  const other = await bench.attach(await bench.image('local.img', SIZE), 'xvdb', 'w');
  await server.pause();
  const begunMs = performance.now();
  await killServer(bench);
  await bench.sh('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc,fsync status=none', other);
  t.ok(performance.now() - begunMs < 15_000, 'another vbd of the bus goes on');
  server.resume();
  await bench.detach('xvda');
  await bench.detach('xvdb');
}

/** The web server is away, and a read waits for it without an end. */
async function endByForce(t: Test, bench: Bench, options: readonly string[]): Promise<void> {
  const { server } = await serve(t, bench);
  const words = [...options, '--option', 'timeout=never', server.url('disk.img'), 'xvda'];
  const path = await bench.attach(...words, ...(options.length === 0 ? ['r'] : []));
  await server.end();
  const reading = bench.try('dd if="$1" of=/dev/null bs=4k count=1 skip=512 status=none', path);
  await eventually('the disk is reconnecting', 60_000, async () => (await bench.list())[0]?.reconnecting != null);
  t.match(await bench.fusetap(['detach', 'xvda']), { status: 4, stderr: /in use/ }, 'not without force');
  const begunMs = performance.now();
  await bench.detach('--force', 'xvda');
  // the limit for a disk that hangs is 75 s
  t.ok(performance.now() - begunMs < 30_000, 'it ends soon');
  t.not((await reading).status, 0, 'the read fails');
  t.same(await bench.traces(), []);
}

/** Nothing is flushed to a disk that is only read: so it need not be reached. */
async function endWhileAway(t: Test, bench: Bench): Promise<void> {
  const { server } = await serve(t, bench);
  const path = await bench.attach('--option', 'timeout=2.5', server.url('disk.img'), 'xvda', 'r');
  await server.end();
  t.not((await bench.try('dd if="$1" of=/dev/null bs=4k count=1 skip=512 status=none', path)).status, 0);
  t.match(await bench.succeed(['ls']), /reconnecting/);
  await bench.detach('xvda');
  t.same(await bench.traces(), []);
}
