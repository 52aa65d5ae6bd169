/**
 * What ram images take: what they use and not their size, given back as it is discarded, and no more than the limit,
 * whoever writes and whoever runs the buses.
 */
import { readFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { startBusOn } from '../survival/bus.js';
import { Client } from './client.js';
import { eventually } from './command.js';
import { OTHERS, onDefaultTransport, openBench, storiesFor, type TestTransport } from './fixtures.js';
import { attach, detachAll, MIB, pause, resume, Stage } from './ram-stage.js';

t.setTimeout(240_000);

const LIMIT_BYTES = 40 * MIB;

/** `wide` has the machine's own limit */
type Buses = Stage<'wide' | 'a' | 'b'>;
type Story = (t: Test, stage: Buses) => Promise<void>;

const STORIES: Record<string, Story> = {
  'a sparse image takes what it uses, and gives back what is discarded': useWhatIsUsed,
  'the limit holds for attaches, on any bus': refuseAttaches,
  'the limit holds for writes': refuseWrites,
  'the limit holds for writes that were held': refuseHeldWrites,
};
/** where loop devices are to be had, and passthrough; and what does not depend on who runs the buses */
const AS_ROOT: Record<string, Story> = {
  'what fstrim discards is given back': giveBackTrimmed,
  'pages of zeros cost nothing': leaveOutZeros,
  'the limit holds below filters too': refuseBelowFilters,
  'what is passed through counts with its whole size': countWhole,
};

const PROGRAMS = ['mkfs.ext4', 'losetup', 'fstrim', 'fallocate', 'dd', 'perl'];

onDefaultTransport(t, PROGRAMS, account, OTHERS);

async function account(t: Test, transport: TestTransport): Promise<void> {
  const bench = await openBench(t, transport);
  const env = { FUSETAP_RAM_LIMIT: String(LIMIT_BYTES) };
  const [wide, a, b] = await Promise.all([
    startBusOn(bench, {}, 'wide'),
    startBusOn(bench, env, 'a'),
    startBusOn(bench, env, 'b'),
  ]);
  const stage = new Stage(bench, { wide, a, b });
  const stories = storiesFor(transport, STORIES, AS_ROOT);
  for (const [name, story] of Object.entries(stories)) {
    await t.test(name, async (t) => {
      await story(t, stage);
      await detachAll(...Object.values(stage.bus));
      await stage.isEmpty(t);
    });
  }
  await stage.end(t);
}

async function useWhatIsUsed(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('sparse.img', 8 * 2 ** 30, 64 * MIB);
  const { path } = await attach(bus.wide, { image, passthrough: 'off' });
  const resident = (): Promise<number> => stage.residentBytes();
  t.equal(await resident(), 64 * MIB);
  t.match(await stage.memory(), { usedBytes: 64 * MIB, images: [{ image, configuredBytes: 8 * 2 ** 30 }] });
  await bench.sh('fallocate -p -o 0 -l 32M "$1"', path);
  t.equal(await resident(), 32 * MIB, 'punched, and given back at once');
  await bench.sh('fallocate -z -n -o 32M -l 16M "$1"', path);
  t.equal(await resident(), 16 * MIB, 'zeroed likewise');
}

async function giveBackTrimmed(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('trimmed.img', 8 * 2 ** 30);
  const { path } = await attach(bus.wide, { image, passthrough: 'off' });
  const resident = (): Promise<number> => stage.residentBytes();
  await bench.sh('mkfs.ext4 -q -F "$1"', path);
  const device = await bench.loop(path);
  const directory = await bench.makeDirectory('mnt');
  await bench.sh('mount "$1" "$2"; fstrim "$2"; sync -f "$2"', device, directory);
  const empty = await resident();
  await bench.sh('head -c 48M /dev/urandom > "$1/file"; sync -f "$1"', directory);
  t.ok((await resident()) >= empty + 48 * MIB, 'a file takes memory');
  await bench.sh('rm "$1/file"; sync -f "$1"; fstrim "$1"', directory);
  t.ok((await resident()) < empty + 8 * MIB, 'fstrim gives it back');
  await bench.sh('umount "$1"; losetup -d "$2"', directory, device);
}

async function leaveOutZeros(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('zeros.img', 16 * MIB, MIB);
  await bench.sh('dd if=/dev/zero of="$1" bs=1M seek=1 count=15 conv=notrunc status=none', image);
  t.equal(await bench.sh('stat -c %b "$1"', image), String((16 * MIB) / 512), 'written out, in the file');
  await attach(bus.wide, { image, passthrough: 'off' });
  t.equal(await stage.residentBytes(), MIB, 'not in memory');
}

async function refuseAttaches(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('one.img', 100 * MIB, 24 * MIB);
  const other = await bench.image('other.img', 24 * MIB, 24 * MIB);
  t.match(await attach(bus.a, { image }), { passthrough: false }, 'its whole size does not fit, so threads serve it');
  const refusal = {
    code: 'NO_SPACE',
    message: /takes 25165824 bytes of memory, 8388608 more.*limit is 41943040, 25165824 are/,
  };
  await t.rejects(attach(bus.a, { image: other }), refusal);
  await t.rejects(attach(bus.b, { image: other }), refusal, 'on any bus');
  await attach(bus.b, { image });
  const tooLarge = { code: 'UNSUPPORTED', message: /104857600 bytes do not fit/ };
  await t.rejects(attach(bus.a, { image, passthrough: 'on' }), tooLarge);
  const figures = await bench.succeed(['memory', '--json'], { env: { FUSETAP_RAM_LIMIT: '40M' } });
  t.match(JSON.parse(figures), { totalBytes: 40 * MIB, usedBytes: 24 * MIB, freeBytes: 16 * MIB });
}

async function refuseWrites(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('one.img', 100 * MIB, 24 * MIB);
  const { path } = await attach(bus.a, { image });
  const other = await attach(bus.b, { image });
  await bench.sh(FILL, path, '384', '128');
  await bench.sh(FILL, other.path, '512', '128');
  t.match(await bench.try(FILL, path, '800', '1'), IS_FULL, 'no hole can be filled');
  t.match(await bench.try(FILL, other.path, '800', '1'), IS_FULL, 'by any bus');
  await bench.sh(FILL, path, '0', '640');
  t.match(await bench.try('fallocate -n -o 90M -l 1M "$1"', path), IS_FULL);
  t.equal(await stage.residentBytes(), LIMIT_BYTES);
  await bench.sh('fallocate -p -o 0 -l 1M "$1"; fallocate -n -o 90M -l 1M "$1"', path);
  t.match(await bench.try(FILL, path, '0', '1'), IS_FULL);
}

const FILL = 'dd if=/dev/zero of="$1" bs=64k seek="$2" count="$3" conv=notrunc status=none';
const IS_FULL = { status: 1, stderr: /No space left/ };

async function refuseBelowFilters(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('filtered.img', 100 * MIB, 38 * MIB);
  const filters = [
    { name: 'offset', value: String(MIB) },
    { name: 'delay', value: '0' },
    { name: 'error', value: 'read@/nowhere' },
  ];
  const { path } = await attach(bus.a, { image, filters });
  await bench.sh(FILL, path, '0', '64');
  await bench.sh(FILL, path, String(37 * 16), '32');
  t.equal(await stage.residentBytes(), LIMIT_BYTES, 'up to the limit');
  t.match(await bench.try(FILL, path, '1500', '1'), IS_FULL, 'no hole can be filled');
  await bench.sh(FILL, path, String(37 * 16), '32');
  t.equal(await stage.residentBytes(), LIMIT_BYTES);
  await bench.sh('fallocate -p -o 0 -l 1M "$1"', path);
  await bench.sh(FILL, path, '1500', '16');
}

/** What waited is written by the event loop. */
async function refuseHeldWrites(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('held.img', 100 * MIB, LIMIT_BYTES);
  const { path, vdev } = await attach(bus.a, { image });
  const client = await Client.open(t, bench, 'write', path);
  await pause(bus.a, vdev);
  const write = client.call('write', 90 * MIB, MIB);
  // what comes later is put aside behind it
  const other = await Client.open(t, bench, 'write', path);
  const rewrite = other.call('write', 0, MIB);
  await waitsInKernel(client);
  await waitsInKernel(other);
  await resume(bus.a, vdev);
  t.equal(await write, 'No space left on device');
  t.equal(await rewrite, String(MIB));
  t.equal(await stage.residentBytes(), LIMIT_BYTES);
  await Promise.all([client.release(), other.release()]);
}

async function waitsInKernel({ pid }: Client): Promise<void> {
  await eventually('the write is under way', 20_000, async () => {
    const stack = await readFile(`/proc/${pid}/syscall`, 'utf8');
    return /^(1|64) /.test(stack);
  });
}

async function countWhole(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('whole.img', 30 * MIB, MIB);
  const used = async (): Promise<number> => (await stage.memory()).usedBytes;
  const reader = await attach(bus.b, { image, mode: 'r' });
  t.match(reader, { passthrough: true });
  t.equal(await used(), MIB, 'in mode r nothing grows');
  const writer = await attach(bus.a, { image });
  t.match(writer, { passthrough: true });
  t.equal(await used(), 30 * MIB, 'the kernel asks nobody before it fills a hole');
  const data = await bench.image('data.img', 11 * MIB, 11 * MIB);
  await t.rejects(attach(bus.b, { image: data }), { code: 'NO_SPACE', message: /1048576 more/ });
  await bus.a.detach(writer.vdev);
  t.equal(await used(), MIB, 'until it goes');
  await attach(bus.b, { image: data });
}
