/** `fusetap reread`: the partition table of a vbd is read again while programs use the vbd. */
import t, { type Test } from 'tap';
import { reread } from '../../mount/client/follow.js';
import { SFDISK, SFDISK_PROGRAMS } from '../drivers/partitions/sfdisk.js';
import { type Bus, startBus } from '../survival/bus.js';
import { Client } from './client.js';
import { type Bench, JUST_USER, onDefaultTransport, openBench, whyNot } from './fixtures.js';

t.setTimeout(240_000);

const MIB = 1 << 20;
const skip = whyNot(...SFDISK_PROGRAMS);

/** Writes a table to the disk, by its file: sfdisk would ask the kernel to read it, which is refused. */
function partition(bench: Bench, path: string, script: string): Promise<string> {
  return bench.sh('script=$1; shift; printf "$script" | "$@"', script, ...SFDISK, '-q', '--no-reread', path);
}

t.test('a new table shows at once', (t) => {
  onDefaultTransport(
    t,
    SFDISK_PROGRAMS,
    async (t, transport) => {
      const bench = await openBench(t, transport);
      const disk = await bench.attach(await bench.image('disk.img', 32 * MIB));
      await partition(bench, disk, 'label: gpt\\n,4M\\n,8M\\n');
      t.equal(await bench.succeed(['reread', 'xvda']), `${disk}1\n${disk}2`, 'also without --partitions at the attach');
      await bench.sh('printf one | dd of="$1"1 conv=notrunc status=none', disk);
      t.equal(await bench.sh('dd if="$1" bs=1M skip=1 count=1 status=none | head -c 3', disk), 'one');
      await partition(bench, disk, 'label: gpt\\n,4M\\n,6M\\n,2M\\n');
      const first = await Client.open(t, bench, 'write', `${disk}1`);
      t.equal((await bench.succeed(['reread', 'xvda'])).split('\n').length, 3);
      t.equal(await first.call('text', 0, 3), 'one', 'a partition that stays is the same file');
      t.equal(await bench.sh('stat -c %s "$1"2', disk), String(6 * MIB));
      await first.release();
      await bench.sh('dd if=/dev/zero of="$1" bs=1M count=1 conv=notrunc status=none', disk);
      t.match(await bench.fusetap(['reread', 'xvda']), {
        status: 0,
        stdout: '',
        stderr: /there is no partition table/,
      });
      t.equal(await bench.sh('ls "$1" | grep -c xvd', disk.slice(0, -5)), '1');
      await bench.detach('xvda');
      t.same(await bench.traces(), []);
    },
    JUST_USER,
  );
  t.end();
});

async function prepare(bus: Bus): Promise<string> {
  const { bench } = bus;
  const image = await bench.image('disk.img', 32 * MIB);
  await partition(bench, image, 'label: dos\\n,4M\\n,8M\\n');
  const { path } = await bus.attach({ driver: 'aio', image, vdev: 'xvda', partitions: true });
  return path;
}

interface Subject {
  readonly bus: Bus;
  /** the path of xvda */
  readonly disk: string;
}

t.test('on one bus', { skip }, async (t) => {
  const bus = await startBus(t);
  const subject = { bus, disk: await prepare(bus) };
  await t.test('a partition in use that changes is named, and nothing happens', (t) => keepUsed(t, subject));
  await t.test('a later server has the new partitions', (t) => outlive(t, subject));
  await t.test('while the disk is paused', (t) => whilePaused(t, subject));
  await t.test('the name of a partition is taken', (t) => takenNames(t, subject));
  await t.test('a copy in memory that is passed through', (t) => inMemory(t, subject));
  await t.test('many times: no place of a file is used up', (t) => manyTimes(t, subject));
});

async function ranges(bus: Bus): Promise<(number | undefined)[][]> {
  const vbd = (await bus.info()).vbds.find(({ vdev }) => vdev === 'xvda');
  return (vbd?.partitions ?? []).map(({ offset, size }) => [offset / MIB, size / MIB]);
}

async function keepUsed(t: Test, { bus, disk }: Subject): Promise<void> {
  const { bench, place } = bus;
  await partition(bench, disk, 'label: dos\\n,4M\\n,2M\\n');
  const client = await Client.open(t, bench, 'write', `${disk}2`);
  await t.rejects(reread(place, 'xvda'), {
    code: 'BUSY',
    message: /xvda2 on bus 0 is in use by .*perl.*, and the new table has it elsewhere or not at all/,
    hint: 'close it there, and try again',
  });
  t.same(await ranges(bus), [
    [1, 4],
    [5, 8],
  ]);
  t.equal(await client.call('write', 8 * MIB - 512, 512), '512');
  await client.release();
  t.equal((await reread(place, 'xvda')).partitions?.[1]?.size, 2 * MIB);
  t.match(await bench.try('dd if=/dev/zero of="$1"2 bs=1M count=3 conv=notrunc status=none', disk), {
    status: 1,
    stderr: /No space left/,
  });
}

async function outlive(t: Test, { bus, disk }: Subject): Promise<void> {
  const { bench, place } = bus;
  await partition(bench, disk, 'label: dos\\n,4M\\n,2M\\n,3M\\n');
  await reread(place, 'xvda');
  const client = await Client.open(t, bench, 'write', `${disk}3`);
  await bus.killServer();
  t.equal(await client.call('write', 0, 512, 'n'), '512');
  await bus.upgrade();
  t.equal(await client.call('text', 0, 2), 'nn');
  await client.release();
  t.equal((await ranges(bus)).length, 3);
}

async function whilePaused(t: Test, { bus, disk }: Subject): Promise<void> {
  const { bench, place } = bus;
  await bus.ask('POST', '/vbds/xvda/pause');
  await partition(bench, bench.path('disk.img'), 'label: dos\\n,4M\\n,2M\\n,3M\\n,1M\\n');
  await reread(place, 'xvda');
  const write = bench.sh('printf w | dd of="$1"4 conv=notrunc status=none', disk);
  t.match(await reread(place, 'xvda'), { state: 'paused' });
  await bus.ask('POST', '/vbds/xvda/resume');
  await write;
  t.equal(await bench.sh('head -c 1 "$1"4', disk), 'w');
}

async function takenNames(t: Test, { bus }: Subject): Promise<void> {
  const { bench, place } = bus;
  const image = await bench.image('other.img', 8 * MIB);
  await partition(bench, image, 'label: dos\\n,1M\\n');
  await bus.attach({ driver: 'aio', image, vdev: 'xvdb' });
  await bus.attach({ driver: 'aio', image: await bench.image('third.img', MIB), vdev: 'xvdb3' });
  await t.rejects(reread(place, 'xvdb'), { code: 'BUSY', message: /xvdb3.* is taken/ });
  await bus.detach('xvdb3');
  t.equal((await reread(place, 'xvdb')).partitions?.length, 1);
  await t.rejects(bus.attach({ driver: 'aio', image: bench.path('third.img'), vdev: 'xvdb3' }), { code: 'BUSY' });
  await bus.attach({ driver: 'aio', image: bench.path('third.img'), vdev: 'xvdc2' });
  await t.rejects(reread(place, 'xvdc2'), { code: 'USAGE', message: /not the slot of a whole disk/ });
}

async function inMemory(t: Test, { bus }: Subject): Promise<void> {
  const { bench, place } = bus;
  const image = await bench.image('golden.img', 8 * MIB);
  const { path } = await bus.attach({ driver: 'ram', image, vdev: 'xvdd' });
  await partition(bench, path, 'label: dos\\n,2M\\n');
  t.equal((await reread(place, 'xvdd')).partitions?.length, 1);
  await bench.sh('printf ram | dd of="$1"1 conv=notrunc status=none', path);
  t.equal(await bench.sh('dd if="$1" bs=1M skip=1 count=1 status=none | head -c 3', path), 'ram');
}

async function manyTimes(t: Test, { bus, disk }: Subject): Promise<void> {
  const { bench, place } = bus;
  for (let round = 0; round < 6; round++) {
    await partition(bench, disk, `label: dos\\n,${1 + (round % 3)}M\\n`);
    t.equal((await reread(place, 'xvda')).partitions?.[0]?.size, (1 + (round % 3)) * MIB);
  }
  await bus.detach('xvda');
  t.equal(await bench.sh('ls "$1" | grep -c "xvda" || true', disk.slice(0, -5)), '0');
}
