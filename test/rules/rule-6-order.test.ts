/**
 * Rule 6: a read that starts after a write was acknowledged sees it, and of overlapping writes at the same time each
 * sector has one or the other. test/rules/rule-1-one-cache.test.ts has order one call after another, through all openers.
 */
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { putMbr } from '../drivers/partitions/tables.js';
import type { Wish } from '../survival/bus.js';
import { PYTHON } from './caller.js';
import { asked, attachFor, type Ground, prepareGround, WAYS, type Way, whyNotRules } from './fixture.js';
import { seedOf } from './random.js';

t.setTimeout(120_000);

const SIZE = 1 << 20;

void t.test('rule 6: order', { skip: whyNotRules() }, async (t) => {
  const ground = await prepareGround(t);
  for (const way of WAYS) await t.test(way.label, (t) => overlap(t, ground, way, []));
  const onLoop: Way = { label: 'aio on the event loop', driver: 'aio', passthrough: 'off', writesImage: true };
  await t.test(onLoop.label, (t) => overlap(t, ground, onLoop, [{ name: 'delay', value: '1' }]));
  await t.test('large writes stay whole', async (t) => {
    for (const [label, prepare] of Object.entries(MEETINGS)) {
      await t.test(label, async (t) => stayWhole(t, ground, await prepare(t, ground)));
    }
  });
  await t.test('large writes stay whole while servers are killed', (t) => stayWholeWhenKilled(t, ground));
});

/**
 * Four processes, two on each vbd, write the same range at the same time, round after round; each fills it with its own
 * letter. Between rounds they wait for each other and look: no sector may have two letters, and none may have that of an
 * earlier round.
 */
const WRITERS = String.raw`
import os, sys, random
seed, rounds, size, paths = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
waits = [os.pipe() for _ in paths]
goes = [os.pipe() for _ in paths]
for i, path in enumerate(paths):
    if os.fork() == 0:
        fd, numbers = os.open(path, os.O_RDWR), random.Random(seed)
        for round in range(rounds):
            at = numbers.randrange(size // 512 - 300) * 512
            sectors = numbers.choice([1, 8, 100, 256])
            os.read(goes[i][0], 1)
            data = bytes([1 + (round * len(paths) + i) % 250]) * (sectors * 512)
            # each begins somewhere else in the range that all have in common
            shift = i * 512 if sectors > 8 else 0
            if os.pwrite(fd, data, at + shift) != len(data): os._exit(3)
            if os.pread(fd, 1, at + shift) == b"\0": os._exit(4)
            os.write(waits[i][1], b"x")
        os._exit(0)
fds, numbers, torn = [os.open(path, os.O_RDONLY) for path in paths], random.Random(seed), 0
for round in range(rounds):
    at = numbers.randrange(size // 512 - 300) * 512
    sectors = numbers.choice([1, 8, 100, 256])
    for go in goes: os.write(go[1], b"x")
    for wait in waits: os.read(wait[0], 1)
    mine = {1 + (round * len(paths) + i) % 250 for i in range(len(paths))}
    for fd in fds:
        data = os.pread(fd, sectors * 512, at)
        for sector in range(sectors):
            letters = set(data[sector * 512 : sector * 512 + 512])
            if len(letters) != 1 or not letters <= mine: torn += 1
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in paths]
print(torn, sum(codes))
`;

async function overlap(
  t: Test,
  { bench, a, b }: Ground,
  way: Way,
  filters: { name: string; value: string }[],
): Promise<void> {
  const image = await bench.image(`${way.label}.img`, SIZE);
  const wish = { ...asked(way), image, mode: 'w!', filters } as const;
  const [here, there] = [await attachFor(t, a, wish), await attachFor(t, b, wish)];
  const rounds = way.driver === 'sync' ? 40 : 120;
  const words = ['-c', WRITERS, seedOf(t), rounds, SIZE, here.path, there.path, here.path, there.path].map(String);
  const { status, stdout, stderr } = await bench.execute(PYTHON, words);
  t.equal(status, 0, stderr);
  t.equal(stdout.trim(), '0 0', `${rounds} rounds: sectors that are torn or old, processes that failed`);
}

const LARGE_SIZE = 8 << 20;
const PARTITION_AT = 1 << 20;

/** Where two meet: a file, and where the place that all write is in it. */
interface Writer {
  readonly path: string;
  readonly at: number;
}

type Prepare = (t: Test, ground: Ground) => Promise<Writer[]>;

const at = (path: string, place = PARTITION_AT): Writer => ({ path, at: place });
const THREADS = { passthrough: 'off' } as const;
const KERNEL = { passthrough: 'on' } as const;

/** The ways in which two programs may write the same bytes. */
const MEETINGS: Record<string, Prepare> = {
  'ram by threads': async (t, { a, bench }) => {
    const { path } = await attachFor(t, a, { driver: 'ram', image: await imageOn(t, bench.directory), ...THREADS });
    return [at(path), at(path)];
  },
  'ram passed through': async (t, { a, bench }) => {
    const { path } = await attachFor(t, a, { driver: 'ram', image: await imageOn(t, bench.directory), ...KERNEL });
    return [at(path), at(path)];
  },
  'aio on a tmpfs': async (t, { a }) => {
    const { path } = await attachFor(t, a, { driver: 'aio', image: await imageOn(t, '/dev/shm'), ...THREADS });
    return [at(path), at(path)];
  },
  'aio on a disk': async (t, { a, bench }) => {
    const { path } = await attachFor(t, a, { driver: 'aio', image: await imageOn(t, bench.directory), ...THREADS });
    return [at(path), at(path)];
  },
  'a disk and its partition': async (t, { a }) => {
    const image = await imageOn(t, '/dev/shm', true);
    const { path } = await attachFor(t, a, { driver: 'aio', image, partitions: true, ...THREADS });
    return [at(path), at(`${path}1`, 0)];
  },
  'a disk that is passed through and its partition': async (t, { a, bench }) => {
    const image = await imageOn(t, bench.directory, true);
    const { path } = await attachFor(t, a, { driver: 'ram', image, partitions: true, ...KERNEL });
    return [at(path), at(`${path}1`, 0)];
  },
  'two vbds of a ram image': twice('ram', [THREADS, THREADS]),
  'two vbds of a ram image, one of them passed through': twice('ram', [THREADS, KERNEL]),
  'two vbds of a ram image, one of them on the event loop': twice('ram', [THREADS, onTheLoop()]),
  'two vbds with w! of an image on a tmpfs': twice('aio', [THREADS, THREADS]),
  'two buses with a ram image': twice('ram', [THREADS, THREADS], true),
  'two buses with a ram image, one of them passes it through': twice('ram', [THREADS, KERNEL], true),
  'two buses with an image on a tmpfs': twice('aio', [THREADS, THREADS], true),
};

function onTheLoop() {
  return { ...THREADS, filters: [{ name: 'delay', value: '0' }] };
}

/** The second comes while the first is being written. */
function twice(driver: 'ram' | 'aio', [first, second]: Partial<Wish>[], onBoth = false): Prepare {
  return async (t, { a, b, bench }) => {
    const image = await imageOn(t, driver === 'ram' ? bench.directory : '/dev/shm');
    const here = await attachFor(t, a, { driver, image, mode: 'w', ...first });
    const alone = bench.execute(PYTHON, ['-c', LARGE_WRITERS, '1', '30', JSON.stringify([at(here.path)])]);
    await delay(200);
    const there = await attachFor(t, onBoth ? b : a, { driver, image, mode: driver === 'ram' ? 'w' : 'w!', ...second });
    t.match(await alone, { status: 0, stderr: '' });
    return [at(here.path), at(there.path)];
  };
}

async function imageOn(t: Test, directory: string, isParted = false): Promise<string> {
  const own = await mkdtemp(join(directory, 'fusetap-rule-6-'));
  t.teardown(() => rm(own, { recursive: true }));
  const image = join(own, 'large.img');
  const entries = [{ type: 0x83, start: PARTITION_AT / 512, count: (LARGE_SIZE - PARTITION_AT) / 512 }];
  await writeFile(image, isParted ? putMbr(Buffer.alloc(512), 0, entries) : Buffer.alloc(512));
  await truncate(image, LARGE_SIZE);
  return image;
}

/**
 * A process for each writer fills one range with its own letter, all at the same time, round after round; then each sector
 * must be of one letter, wherever the buffers begin in their pages.
 */
const LARGE_WRITERS = `
import json, mmap, os, random, sys
seed, rounds, writers = int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
SIZES = [16 << 10, 64 << 10, 256 << 10, 512 << 10, 512 << 10, 1 << 20]
goes, back = [os.pipe() for _ in writers], os.pipe()
for i, writer in enumerate(writers):
    if os.fork() == 0:
        fd, numbers, own = os.open(writer["path"], os.O_RDWR), random.Random(seed), random.Random(seed + i)
        room = mmap.mmap(-1, (1 << 20) + 4096)
        for round in range(rounds):
            size, place = numbers.choice(SIZES), numbers.randrange(1000) * 512
            begin = own.choice([0, 0, 48, 2064])
            room[begin : begin + size] = bytes([65 + i]) * size
            os.read(goes[i][0], 1)
            if os.pwrite(fd, memoryview(room)[begin : begin + size], writer["at"] + place) != size: os._exit(3)
            os.write(back[1], b"x")
        os._exit(0)
fd, numbers, torn = os.open(writers[0]["path"], os.O_RDONLY), random.Random(seed), 0
for round in range(rounds):
    size, place = numbers.choice(SIZES), numbers.randrange(1000) * 512
    for go in goes: os.write(go[1], b"x")
    done = 0
    while done < len(writers): done += len(os.read(back[0], len(writers) - done))
    data = os.pread(fd, size, writers[0]["at"] + place)
    for sector in range(0, size, 512):
        if data[sector : sector + 512] != data[sector : sector + 1] * 512: torn += 1
codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in writers]
print(torn, sum(codes))
`;

async function stayWhole(t: Test, { bench }: Ground, writers: Writer[], rounds = 80): Promise<void> {
  const words = ['-c', LARGE_WRITERS, String(seedOf(t)), String(rounds), JSON.stringify(writers)];
  const { status, stdout, stderr } = await bench.execute(PYTHON, words);
  t.equal(status, 0, stderr);
  t.equal(stdout.trim(), '0 0', `${rounds} rounds: sectors that are torn, processes that failed`);
}

async function stayWholeWhenKilled(t: Test, ground: Ground): Promise<void> {
  const { a, b } = ground;
  const prepare = MEETINGS['two buses with a ram image'] as Prepare;
  const writers = await prepare(t, ground);
  const [first, second] = writers as [Writer, Writer];
  // two on the bus whose server is killed, so that another writer waits for a range of the dead server
  const work = stayWhole(t, ground, [first, first, second], 150);
  await a.disturb(2, 'kill');
  await b.disturb(1, 'kill');
  await work;
}
