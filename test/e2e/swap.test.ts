/** `fusetap swap`: another image under a vbd that programs have open. */
import { open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { call } from '../../mount/control/call.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { KERNEL, startBus } from '../survival/bus.js';
import { Client } from './client.js';
import { collect, eventually } from './command.js';
import { type Bench, OTHERS, onDefaultTransport, openBench, type TestTransport, whyNot } from './fixtures.js';

t.setTimeout(240_000);

const SIZE = 1 << 20;
const skip = whyNot('dd', 'cp');

/** An image that is filled with one letter. */
async function filled(bench: Bench, name: string, letter: string): Promise<string> {
  const path = await bench.image(name, SIZE);
  const file = await open(path, 'r+');
  await file.write(Buffer.alloc(SIZE, letter));
  await file.close();
  return path;
}

async function letterAt(path: string, offset: number): Promise<string> {
  return String.fromCharCode((await readFile(path))[offset] ?? 0);
}

async function only(bench: Bench): Promise<VbdInfo | undefined> {
  return (await bench.list())[0];
}

t.test('a program goes on with the new image', (t) => {
  const goOn = async (t: Test, transport: TestTransport): Promise<void> => {
    const bench = await openBench(t, transport);
    const [a, b] = [await filled(bench, 'a.img', 'a'), await filled(bench, 'b.img', 'b')];
    const vbd = await bench.attach('--passthrough', 'off', a);
    const client = await Client.open(t, bench, 'write', vbd);
    t.equal(await client.call('text', 0, 1), 'a');
    await client.call('write', 4096, 1, 'F');
    t.equal(await bench.succeed(['swap', 'xvda', b]), vbd);
    t.match(await only(bench), { image: b, driver: 'aio', state: 'running', opens: 1 });
    t.equal(await client.call('text', 0, 1), 'b');
    await client.call('write', 8192, 1, 'S');
    await client.release();
    await bench.detach('xvda');
    t.same(
      [await letterAt(a, 4096), await letterAt(a, 8192)],
      ['F', 'a'],
      'what was written before is in the old image',
    );
    t.same([await letterAt(b, 4096), await letterAt(b, 8192)], ['b', 'S']);
  };
  onDefaultTransport(t, ['dd'], goOn, OTHERS);
  t.end();
});

t.test('a writer that never stops loses nothing', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const images = [await filled(bench, 'a.img', 'a'), await filled(bench, 'b.img', 'b')];
  const vbd = await bench.attach(images[0] as string);
  // each block is written once, and its number printed when it is acknowledged
  const script =
    'for i in $(seq 0 255); do printf %04d $i | dd of="$1" bs=4k seek=$i conv=notrunc status=none && echo $i; done';
  const writer = bench.startProgram('sh', ['-c', script, 'sh', vbd]);
  const written = collect(writer);
  let swaps = 0;
  while (writer.exitCode === null && swaps < 20) {
    swaps += 1;
    await bench.succeed(['swap', 'xvda', images[swaps % 2] as string]);
  }
  const { status, stdout } = await written;
  t.equal(status, 0);
  t.equal(stdout.split('\n').length, 257);
  await bench.detach('xvda');
  const [a, b] = await Promise.all(images.map((path) => readFile(path)));
  for (let block = 0; block < 256; block++) {
    const word = String(block).padStart(4, '0');
    const found = [a, b].filter((bytes) => bytes?.toString('latin1', block * 4096, block * 4096 + 4) === word);
    if (found.length !== 1) t.fail(`block ${block} is in ${found.length} of the images`);
  }
  t.ok(swaps >= 2, `${swaps} swaps`);
});

t.test('what is refused leaves the vbd as it was', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const a = await filled(bench, 'a.img', 'a');
  const vbd = await bench.attach(a);
  const small = await bench.image('small.img', SIZE / 2);
  const other = await filled(bench, 'other.img', 'o');
  await bench.attach(other);
  const before = await only(bench);
  for (const [words, status, stderr] of [
    [['xvda', small], 2, /size/],
    [['xvda', other], 4, /other\.img.* is attached with mode w by bus 0 as xvdb/],
    [['xvda', join(bench.directory, 'none.img')], 3, /no such image/],
    [['xvda', `tap:aio:${a},xvdc,w`], 2, /a vbd keeps its place: .* names xvdc/],
    [['xvda'], 2, /nothing to attach/],
    [['xvdz', a], 3, /no such vbd: 'xvdz' on bus 0/],
    [['xvda', '--driver', 'ram', '--option', 'x'], 2, /--option x has no value/],
  ] as const) {
    t.match(await bench.fusetap(['swap', ...words]), { status, stderr, stdout: '' }, words.join(' '));
    t.same(await only(bench), before);
    t.equal(await bench.sh('head -c 1 "$1"', vbd), 'a', 'and it is not paused');
  }
});

t.test('what the kernel serves by itself keeps its image', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  await bench.attach(`ram:${await filled(bench, 'a.img', 'a')}`);
  if (!(await only(bench))?.passthrough) return t.pass('there is no passthrough here');
  const swapped = await bench.fusetap(['swap', 'xvda', await filled(bench, 'b.img', 'b')]);
  t.match(swapped, { status: 6, stderr: /xvda is passed through: .*attach it with --passthrough off/ });
  t.equal((await only(bench))?.state, 'running');
});

t.test('a vbd that was paused stays paused', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const vbd = await bench.attach(await filled(bench, 'a.img', 'a'));
  await bench.succeed(['pause', 'xvda']);
  const info = JSON.parse(
    await bench.succeed(['swap', '--json', 'xvda', await filled(bench, 'b.img', 'b')]),
  ) as VbdInfo;
  t.match(info, { vdev: 'xvda', state: 'paused' });
  await bench.succeed(['resume', 'xvda']);
  t.equal(await bench.sh('head -c 1 "$1"', vbd), 'b');
});

t.test('file to memory and back, whatever the driver was', { skip }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const [a, b] = [await filled(bench, 'a.img', 'a'), await filled(bench, 'b.img', 'b')];
  const vbd = await bench.attach(a);
  const read = (): Promise<string> => bench.sh('head -c 1 "$1"', vbd);
  await bench.succeed(['swap', 'xvda', `ram:${b}`]);
  await bench.sh('printf m | dd of="$1" conv=notrunc status=none', vbd);
  t.match(await only(bench), { driver: 'ram', image: b });
  await bench.succeed(['swap', 'xvda', `sync:${a}`]);
  t.same([await read(), await letterAt(b, 0)], ['a', 'b'], 'the copy is gone, and was a copy');
  t.match(JSON.parse(await bench.succeed(['memory', '--json'])), { images: [] });
  await bench.succeed(['swap', 'xvda', a]);
  t.match(await only(bench), { driver: 'aio', image: a }, 'the same image by another driver');
  t.equal(await read(), 'a');
});

t.test('a swap that is given up leaves the vbd running with its image', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench, place } = bus;
  const [a, b] = [await filled(bench, 'a.img', 'a'), await filled(bench, 'b.img', 'b')];
  const slow = [{ name: 'delay', value: '20000' }];
  const { path, vdev } = await bus.attach({ driver: 'aio', image: a, filters: slow });
  // a request that takes long keeps the vbd from being paused
  const read = bench.sh('head -c 1 "$1"', path);
  await eventually('it reads', 20_000, async () => ((await only(bench))?.opens ?? 0) > 0);
  const client = new AbortController();
  const body = { driver: 'aio', image: b, options: {}, pause: true };
  const swapping = call(place, 'POST /vbds/{vdev}/swap', { vdev, body, signal: client.signal });
  swapping.catch(() => {});
  const copy = { path: join(bench.directory, 'copy.img'), force: false };
  await eventually('it is being swapped', 20_000, async () => {
    const refusal = await call(place, 'POST /vbds/{vdev}/save', { vdev, body: copy }).catch((error: Error) => error);
    return /is being given another image/.test(`${refusal}`);
  });
  client.abort(new Error('the client went away'));
  await t.rejects(swapping);
  t.equal(await read, 'a');
  await eventually('it goes on', 20_000, async () => (await only(bench))?.state === 'running');
  t.equal((await only(bench))?.image, a);
});
