/** An image of another format is not attached as raw: one write would ruin it. `--raw` says that it is meant. */
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { openDisk } from '../../mount/index.js';
import { KERNEL } from '../survival/bus.js';
import { type Bench, openBench, whyNot } from './fixtures.js';

t.setTimeout(120_000);

const REFUSED = {
  status: 2,
  stdout: '',
  stderr: /is not raw: it is a qcow2 image: use qcow2:.*, or convert it: qemu-img .*--raw/,
};

t.test('images of other formats', { skip: whyNot('qemu-img') }, async (t) => {
  const bench = await openBench(t, KERNEL);
  const image = bench.path('disk.qcow2');
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', image, '1G']);
  await bench.begin();
  await t.test('are refused, whatever attaches them', (t) => refuse(t, bench, image));
  await t.test('are attached as raw bytes on request', (t) => allow(t, bench, image));
  await t.test('are left alone where the disk does not show their marks', (t) => narrow(t, bench, image));
  await t.test('are the business of a driver of others', (t) => leaveToDriver(t, bench, image));
});

async function refuse(t: Test, bench: Bench, image: string): Promise<void> {
  for (const driver of ['aio', 'sync', 'ram']) t.match(await bench.fusetap(['attach', `${driver}:${image}`]), REFUSED);
  t.match(await bench.fusetap(['attach', '-r', image]), REFUSED, 'mode r');
  t.match(await bench.fusetap(['attach', `${image},xvda,w`]), REFUSED, "xm's form");
  t.match(await bench.fusetap(['run', image, '--', 'true']), { ...REFUSED, status: 125 });
  await bench.attach(await bench.image('plain.img', 1 << 20));
  t.match(await bench.fusetap(['swap', 'xvda', image]), REFUSED);
  await bench.detach('xvda');
  await t.rejects(openDisk(image), { code: 'USAGE', message: /is not raw: it is a qcow2 image/ });
  t.same(await bench.list(), []);
}

async function allow(t: Test, bench: Bench, image: string): Promise<void> {
  await bench.attach('--raw', image);
  const [vbd] = await bench.list();
  t.match(vbd, { raw: true });
  await bench.detach('xvda');
  await writeFile(bench.path('disks.json'), JSON.stringify([vbd]));
  await bench.succeed(['attach', '--config', bench.path('disks.json')]);
  t.match(await bench.list(), [{ raw: true, image }], 'and by what ls --json printed');
  await bench.detach('xvda');
  await writeFile(bench.path('guest.xl'), `disk = [ '${image},raw,xvda,rw' ]`);
  t.match(await bench.fusetap(['attach', '--config', bench.path('guest.xl')]), { status: 2 });
  await bench.succeed(['attach', '--raw', '--config', bench.path('guest.xl')]);
  await bench.detach('xvda');
  await bench.attach('--raw', `ram:${image}`);
  await bench.succeed(['reset', 'xvda']);
  await bench.detach('xvda');
  const disk = await openDisk(image, { raw: true });
  await disk.close();
}

async function narrow(t: Test, bench: Bench, image: string): Promise<void> {
  await bench.attach('--offset', '64K', image);
  await bench.detach('xvda');
  const fixed = bench.path('fixed.vhd');
  execFileSync('qemu-img', ['create', '-q', '-f', 'vpc', '-o', 'subformat=fixed,force_size', fixed, '4M']);
  t.match(await bench.fusetap(['attach', fixed]), { status: 2, stderr: /a fixed VHD image/ });
  await bench.attach('--sizelimit', '4M', fixed);
  await bench.detach('xvda');
}

async function leaveToDriver(t: Test, bench: Bench, image: string): Promise<void> {
  await writeFile(
    bench.path('mine.js'),
    `export default {
      name: 'mine', image: 'required',
      async open() { return { size: 4096, async read(buffer) { buffer.fill(7); }, async close() {} }; },
    };`,
  );
  const path = await bench.attach('-r', '--driver', bench.path('mine.js'), '--image', image);
  t.equal(await bench.sh('head -c 2 "$1" | od -An -tx1', path), ' 07 07');
  await bench.detach('xvda');
}
