/** What people do with a block device, done with a vbd: programs that empty a file before they fill it change no size. */
import { open } from 'node:fs/promises';
import t, { type Test } from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { Client, cannotMap } from './client.js';
import { isInstalled } from './command.js';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

const SIZE = 16 << 20;

/** Each fills the vbd ("$1") with `other`. rsync takes files of one size and one second for equal unless told not to. */
const HABITS: Record<string, string> = {
  'qemu-img': 'qemu-img convert -f raw -O raw other "$1"',
  nbdcopy: 'nbdcopy -- other "$1"',
  rsync: 'rsync --inplace --no-times --ignore-times other "$1"',
};

t.test('a vbd is a block device in habit', (t) => {
  onDefaultTransport(t, ['dd', 'cmp', 'losetup', 'blockdev'], async (t, transport) => {
    for (const driver of ['aio', 'ram'])
      await t.test(driver, async (t) => fill(t, await openBench(t, transport), driver));
    await t.test('below a loop device', async (t) => emptyBelowLoop(t, await openBench(t, transport)));
    await t.test('what it tells of itself', async (t) => tell(t, await openBench(t, transport)));
    const skip = cannotMap || !transport.abilities.passthrough;
    await t.test('a shared mapping of a disk of mode r', { skip }, async (t) => map(t, await openBench(t, transport)));
  });
  t.end();
});

async function fill(t: Test, bench: Bench, driver: string): Promise<void> {
  const vbd = await bench.attach(`${driver}:${await bench.image('disk.img', SIZE, SIZE)}`);
  await bench.sh('head -c "$1" /dev/urandom > other', String(SIZE));
  for (const [program, script] of Object.entries(HABITS)) {
    await t.test(program, { skip: !isInstalled(program) && `${program} is not installed` }, async (t) => {
      await bench.sh('dd if=/dev/zero of="$1" bs=1M count=16 status=none', vbd);
      await bench.sh(`${script}; cmp "$1" other`, vbd);
      t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE));
    });
  }
  await bench.detach(vbd);
}

/** The kernel must not take the file for empty while a loop device reads it. */
async function emptyBelowLoop(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('below.img', SIZE, SIZE);
  const vbd = await bench.attach('--passthrough', 'off', image);
  for (const directIo of ['off', 'on']) {
    const device = await bench.loop(vbd, `--direct-io=${directIo}`);
    await bench.sh(': > "$1"; truncate -s 0 "$1"', vbd);
    await bench.sh('blockdev --flushbufs "$1"; cmp "$1" "$2"', device, image);
    await bench.sh('losetup -d "$1"', device);
  }
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(SIZE));
  await bench.detach('--wait', '10', vbd);
}

async function tell(t: Test, bench: Bench): Promise<void> {
  const vbd = await bench.attach(await bench.image('disk.img', SIZE));
  t.equal(await bench.sh('blockdev --getsize64 --getbsz "$1"', vbd), `${SIZE}\n4096`);
  t.equal(await bench.sh('df --block-size=1 --output=size "$1" | tail -n 1 | tr -d " "', vbd), String(SIZE));
  await bench.detach(vbd);
}

/** The mapping shows the image's page cache, outlives the server, and keeps the vbd from being swapped or detached. */
async function map(t: Test, bench: Bench): Promise<void> {
  const [image, other] = [await bench.image('disk.img', SIZE), await bench.image('other.img', SIZE, SIZE)];
  const vbd = await bench.attach('-r', '--partitions', image);
  const client = await Client.open(t, bench, 'read', vbd);
  t.equal(await client.call('mmap', 1), '00000000');
  const file = await open(image, 'r+');
  await file.write('WXYZ', 0);
  await file.close();
  t.equal(await client.call('mmap', 1), '5758595a', 'a mapping');
  t.equal(await client.call('text', 0, 4), 'WXYZ', 'a read');

  const before = await only(bench);
  t.match(before, { passthrough: false, opens: 1 });
  process.kill(before?.serverPid ?? 0, 'SIGKILL');
  t.equal(await client.call('text', 0, 4), 'WXYZ', 'a read after the server died');
  t.equal(await client.call('mmap', 1), '5758595a', 'a mapping after the server died');
  const late = await Client.open(t, bench, 'read', vbd);
  t.equal(await late.call('mmap', 1), '5758595a', 'a new open by the new server');
  await late.release();

  const refused = await bench.fusetap(['swap', 'xvda', other]);
  t.match(refused, { status: 4, stderr: /can be mapped.*--passthrough off/ });
  t.equal(await client.call('text', 0, 4), 'WXYZ', 'a refused swap changes nothing');
  await client.release();
  const closed = await Client.open(t, bench, 'map', vbd);
  t.equal((await bench.fusetap(['detach', 'xvda'])).status, 4, 'a mapping whose file is closed');
  await closed.release();

  await bench.succeed(['swap', 'xvda', other]);
  const swapped = await Client.open(t, bench, 'read', vbd);
  t.match(await swapped.call('mmap', 1), /No such device/, 'after a swap');
  await swapped.release();
  await bench.sh('cmp "$1" "$2"', vbd, other);
  await bench.detach('xvda');
}

async function only(bench: Bench): Promise<VbdInfo | undefined> {
  return (await bench.list())[0];
}
