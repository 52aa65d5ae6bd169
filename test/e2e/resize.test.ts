/** `fusetap resize`: a vbd that programs have open follows its image, which has grown. */
import { truncate, writeFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { resize } from '../../mount/client/follow.js';
import type { VbdInfo } from '../../mount/control/interface.js';
import { type Bus, startBus, type Wish } from '../survival/bus.js';
import { Client, cannotMap } from './client.js';
import { collect } from './command.js';
import { type Bench, forEachTransport, JUST_USER, openBench, whyNot } from './fixtures.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const skip = whyNot('dd');

async function only(bench: Bench): Promise<VbdInfo | undefined> {
  return (await bench.list())[0];
}

t.test('a program that has the vbd open writes behind the old end', (t) => {
  forEachTransport(
    t,
    ['dd'],
    async (t, transport) => {
      const bench = await openBench(t, transport);
      const image = await bench.image('disk.img', MIB);
      const vbd = await bench.attach('--passthrough', 'off', image);
      const client = await Client.open(t, bench, 'write', vbd);
      t.match(await client.call('write', MIB, 512), /No space left/);
      await truncate(image, 3 * MIB + 1300);
      t.match(await only(bench), { size: MIB, changedOutside: true }, 'nothing happens by itself');
      t.equal(await bench.succeed(['resize', image]), String(3 * MIB + 1300));
      t.equal(await bench.sh('stat -c %s "$1"', vbd), String(3 * MIB + 1300));
      t.match(await only(bench), { size: 3 * MIB + 1300, changedOutside: false, opens: 1 });
      t.equal(await client.call('write', 3 * MIB, 512, 'z'), '512');
      t.equal(await client.call('text', 3 * MIB, 3), 'zzz');
      t.equal(await client.call('write', 3 * MIB + 1000, 512), '300', 'and ends at the new end');
      await client.release();
      const detached = await bench.fusetap(['detach', 'xvda']);
      t.match(detached, { status: 0, stderr: '' });
      t.equal(await bench.sh('dd if="$1" bs=1M skip=3 count=1 status=none | head -c 3', image), 'zzz');
      t.match(await bench.succeed(['log']), /resized vdev=xvda size=3147028 oldSize=1048576$/m);
    },
    JUST_USER,
  );
  t.end();
});

interface Subject {
  readonly bus: Bus;
  /** attaches an image, and makes it larger */
  grown(wish: Partial<Wish>, name: string): Promise<VbdInfo>;
}

t.test('on one bus', { skip }, async (t) => {
  const bus = await startBus(t);
  const grown: Subject['grown'] = async (wish, name) => {
    const image = await bus.bench.image(name, 2 * MIB);
    const vbd = await bus.attach({ driver: 'aio', ...wish, image });
    await truncate(image, 4 * MIB);
    return vbd;
  };
  const subject = { bus, grown };
  await t.test('filters decide as at the attach', (t) => filtered(t, subject));
  await t.test('what the kernel serves by itself', (t) => passedThrough(t, subject));
  await t.test('a vbd that is paused stays paused', (t) => stayPaused(t, subject));
  await t.test('partitions stay; the rest of the disk grows', (t) => keepPartitions(t, subject));
  await t.test('what is refused changes nothing', (t) => refused(t, subject));
  await t.test('a block device', { skip: whyNot('losetup') }, (t) => onDevice(t, subject));
  await t.test('a driver of others is opened again', (t) => thirdParty(t, subject));
});

async function filtered(t: Test, { bus, grown }: Subject): Promise<void> {
  const { bench, place } = bus;
  const offset = await grown({ filters: [{ name: 'offset', value: '1000' }] }, 'offset.img');
  t.equal((await resize(place, offset.vdev)).size, 4 * MIB - 1000);
  const limited = await grown({ driver: 'sync', filters: [{ name: 'sizelimit', value: '1M' }] }, 'limit.img');
  t.equal((await resize(place, limited.vdev)).size, MIB, 'the limit stays');
  const slow = await grown({ filters: [{ name: 'delay', value: '1' }] }, 'slow.img');
  t.equal((await resize(place, slow.vdev)).size, 4 * MIB, 'a disk on the event loop');
  await bench.sh('printf end | dd of="$1" bs=1 seek=4194301 conv=notrunc status=none', slow.path);
  t.equal(await bench.sh('tail -c 3 slow.img'), 'end');
}

async function passedThrough(t: Test, { bus, grown }: Subject): Promise<void> {
  const { bench, place } = bus;
  const vbd = await grown({ passthrough: 'on' }, 'passed.img').catch((error: Error) => error);
  if (vbd instanceof Error || !vbd.passthrough) return void t.pass('there is no passthrough here');
  const client = await Client.open(t, bench, 'write', vbd.path);
  t.equal((await resize(place, vbd.vdev)).size, 4 * MIB);
  t.equal(await bench.sh('stat -c %s "$1"', vbd.path), String(4 * MIB));
  t.equal(await client.call('write', 4 * MIB - 512, 512, 'k'), '512');
  t.equal(await client.call('seek', 0, 2), String(4 * MIB));
  await client.release();
  t.equal(await bench.sh('tail -c 1 passed.img'), 'k');

  const readOnly = await grown({ mode: 'r' }, 'mapped.img');
  const map = async (): Promise<string> => {
    const reader = await Client.open(t, bench, 'read', readOnly.path);
    const bytes = await reader.call('mmap', 1);
    await reader.release();
    return bytes;
  };
  const before = cannotMap === false ? await map() : '';
  t.equal((await resize(place, readOnly.vdev)).size, 4 * MIB);
  if (cannotMap === false) t.equal(await map(), before, 'a vbd of mode r can be mapped as before');
}

async function stayPaused(t: Test, { bus, grown }: Subject): Promise<void> {
  const { bench, place } = bus;
  const vbd = await grown({}, 'paused.img');
  await bus.ask('POST', `/vbds/${vbd.vdev}/pause`);
  t.match(await resize(place, vbd.vdev), { size: 4 * MIB, state: 'paused' });
  const write = bench.sh('printf p | dd of="$1" bs=1M seek=3 conv=notrunc status=none', vbd.path);
  t.match(await resize(place, vbd.vdev), { size: 4 * MIB, state: 'paused' }, 'again: nothing to do');
  await bus.ask('POST', `/vbds/${vbd.vdev}/resume`);
  await write;
  t.equal(await bench.sh('dd if=paused.img bs=1M skip=3 status=none | head -c 1'), 'p');
}

async function keepPartitions(t: Test, { bus }: Subject): Promise<void> {
  const { bench, place } = bus;
  const image = await bench.image('parts.img', 4 * MIB);
  // one MBR entry: type 83, sectors 2048 to 4095
  await bench.sh(
    `printf '\\203\\0\\0\\0\\0\\10\\0\\0\\0\\10\\0\\0' | dd of="$1" bs=1 seek=450 conv=notrunc status=none
     printf '\\125\\252' | dd of="$1" bs=1 seek=510 conv=notrunc status=none`,
    image,
  );
  const vbd = await bus.attach({ driver: 'aio', image, partitions: true });
  const client = await Client.open(t, bench, 'write', `${vbd.path}1`);
  await truncate(image, 8 * MIB);
  t.match(await resize(place, vbd.vdev), { size: 8 * MIB, partitions: [{ size: MIB, opens: 1 }] });
  t.equal(await client.call('write', 0, 1, 'q'), '1');
  await bus.killServer();
  t.equal(await client.call('text', 0, 1), 'q');
  t.equal(await bench.sh('stat -c %s "$1"', vbd.path), String(8 * MIB), 'the next server has the new size');
  await client.release();
  await bus.detach(vbd.vdev);
}

async function refused(t: Test, { bus, grown }: Subject): Promise<void> {
  const { bench, place } = bus;
  const shrunk = await grown({}, 'shrunk.img');
  await truncate(bench.path('shrunk.img'), MIB);
  await t.rejects(resize(place, shrunk.vdev), { code: 'USAGE', message: /had 2097152 bytes, and has 1048576 now/ });
  t.equal((await bus.info()).vbds.find(({ vdev }) => vdev === shrunk.vdev)?.size, 2 * MIB);
  const copy = await grown({ driver: 'ram' }, 'ram.img');
  await t.rejects(resize(place, copy.vdev), { code: 'UNSUPPORTED', message: /is a copy in memory/ });
  await t.rejects(resize(place, 'xvdzz'), { code: 'NOT_FOUND' });
}

async function onDevice(t: Test, { bus }: Subject): Promise<void> {
  const { bench, place } = bus;
  const image = await bench.image('below.img', 2 * MIB);
  const device = await bench.loop(image);
  const vbd = await bus.attach({ driver: 'aio', image: device });
  await truncate(image, 4 * MIB);
  t.equal((await resize(place, vbd.vdev)).size, 2 * MIB, 'the device has not grown yet');
  await bench.sh('losetup -c "$1"', device);
  t.equal((await resize(place, vbd.vdev)).size, 4 * MIB);
  await bus.detach(vbd.vdev);
}

async function thirdParty(t: Test, { bus, grown }: Subject): Promise<void> {
  const { bench, place } = bus;
  await writeFile(
    bench.path('half.mjs'),
    `import { readSync } from 'node:fs';
     export default { name: 'half', image: 'required', open: async ({ image }) => ({
       size: Math.floor(image.sizeBytes / 2),
       async read(buffer, offset) { readSync(image.fd, buffer, 0, buffer.length, offset); },
       async close() {},
     }) };`,
  );
  const vbd = await grown({ driver: bench.path('half.mjs') }, 'half.img');
  t.match(vbd, { size: MIB, mode: 'r' });
  t.equal((await resize(place, vbd.vdev)).size, 2 * MIB);
  t.equal(await bench.sh('cat "$1" | wc -c', vbd.path), String(2 * MIB));
}

t.test('servers that are killed leave the old size or the new one', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench, place } = bus;
  const image = await bench.image('disk.img', MIB);
  const vbd = await bus.attach({ driver: 'aio', image });
  // a writer at the end of the disk: each byte that it could write must be there at the end
  const script = `i=1; while [ $i -le 40 ]; do
    [ "$(stat -c %s "$1")" -ge $((i * 1048576)) ] || continue
    printf %02d $i | dd of="$1" bs=1 seek=$((i * 1048576 - 2)) conv=notrunc status=none
    [ "$(tail -c +$((i * 1048576 - 1)) "$1" | head -c 2)" = "$(printf %02d $i)" ] || echo "lost $i"
    i=$((i + 1))
  done`;
  const written = collect(bench.startProgram('sh', ['-euc', script, 'sh', vbd.path], { timeoutMs: 200_000 }));
  for (let size = 2; size <= 40; size++) {
    await truncate(image, size * MIB);
    const resized = resize(place, vbd.vdev);
    if (size % 4 === 0) process.kill(await bus.serverPid(), 'SIGKILL');
    t.equal((await resized).size, size * MIB);
    // one request that was answered: a bus whose servers die without any is given up
    if (size % 4 === 0) await bus.poke();
  }
  t.match(await written, { status: 0, stdout: '' });
  t.match((await bus.info()).vbds, [{ size: 40 * MIB, changedOutside: false, broken: null }]);
  await bus.detach(vbd.vdev);
  const found = await bench.sh('for i in $(seq 40); do tail -c +$((i * 1048576 - 1)) "$1" | head -c 2; done', image);
  t.equal(found, Array.from({ length: 40 }, (_, i) => String(i + 1).padStart(2, '0')).join(''));
});
