/**
 * Rule 9: busy is busy. A vbd in use is not detached, and its users are named; force loses no acknowledged data. Each way
 * to end a bus makes its data durable first. test/e2e/life.test.ts tests each kind of user.
 */
import { open } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { eventually } from '../e2e/command.js';
import type { Bus } from '../survival/bus.js';
import { startBusOn } from '../survival/bus.js';
import { Caller, MAP_SHARED, PROT_READ_WRITE, PYTHON } from './caller.js';
import {
  asked,
  attachFor,
  type Ground,
  O_RDWR,
  prepareGround,
  refusalOf,
  WAYS,
  type Way,
  whyNotRules,
} from './fixture.js';
import { Trace, type TraceEvent } from './trace.js';

t.setTimeout(120_000);

const SIZE = 8 << 20;
const COMMAND = PYTHON.replace(/^.*\//, '');

void t.test('rule 9: busy is busy', { skip: whyNotRules('strace', 'losetup', 'mkfs.ext4') }, async (t) => {
  const ground = await prepareGround(t);
  await t.test('a mapping whose file is closed', (t) => holdByMapping(t, ground));
  await t.test('a loop device, and a mount of it', (t) => holdByLoop(t, ground));
  await t.test('a bind mount of the file', (t) => holdByBind(t, ground));
  await t.test('all users are named', (t) => nameAll(t, ground));
  for (const way of WAYS) await t.test(`by force, under load: ${way.label}`, (t) => cutOff(t, ground, way));
  await t.test('by force, under a mapping that is passed through', (t) => cutOffMapping(t, ground));
  await t.test('a failed flush is reported with the name of the vbd', (t) => failToFlush(t, ground));
  for (const how of ['stop', 'SIGTERM', 'SIGINT'] as const) {
    await t.test(`${how} flushes, then unmounts`, (t) => flushBeforeEnd(t, ground, how));
  }
});

async function holdByMapping(t: Test, { bench, a, caller }: Ground): Promise<void> {
  const { path, vdev } = await attachFor(t, a, { driver: 'ram', image: await bench.image('mapped.img', SIZE) });
  const fd = await caller.open(path, O_RDWR);
  const map = (await caller.call('mmap', fd, 4096, PROT_READ_WRITE, MAP_SHARED)) as number;
  await caller.call('close', fd);
  const refused = await refusalOf(a.detach(vdev));
  t.equal(refused?.message, `${vdev} on bus a is in use by pid ${caller.pid} (${COMMAND})`);
  t.match(refused, { code: 'BUSY', holders: [{ pid: caller.pid, command: COMMAND }] });
  await caller.call('mwrite', map, Buffer.from('still mapped'));
  t.equal(await bench.sh('head -c 12 "$1"', path), 'still mapped');
  await caller.call('munmap', map, 4096);
  await a.detach(vdev, '?wait=5');
}

async function holdByLoop(t: Test, { bench, a }: Ground): Promise<void> {
  const { path, vdev } = await attachFor(t, a, { driver: 'aio', image: await bench.image('looped.img', SIZE) });
  await bench.sh('mkfs.ext4 -q -F "$1"', path);
  const loop = await bench.loop(path);
  const message = `${vdev} on bus a is in use by ${loop}`;
  t.match(await refusalOf(a.detach(vdev)), { message, holders: [{ loop }] }, 'the device');
  const mount = await bench.makeDirectory('mount-of-a-loop');
  await bench.sh('mount "$1" "$2"; echo data > "$2/file"', loop, mount);
  t.match(await refusalOf(a.detach(vdev)), { message: `${message} mounted on ${mount}`, holders: [{ loop, mount }] });
  t.equal(await bench.sh('cat "$1/file"', mount), 'data', 'which was not disturbed');

  const waiting = a.detach(vdev, '?wait=20');
  await bench.sh('umount "$1"; losetup -d "$2"', mount, loop);
  t.match(await waiting, { vbds: [{ vdev }] }, 'who waits is served when both are gone');
  await bench.sh('e2fsck -fn looped.img; debugfs -R "cat /file" looped.img | grep -x data');
}

async function holdByBind(t: Test, { bench, a }: Ground): Promise<void> {
  const { path, vdev } = await attachFor(t, a, { driver: 'aio', image: await bench.image('bound.img', SIZE) });
  const place = bench.path('bound-here');
  await bench.sh('touch "$2"; mount --bind "$1" "$2"', path, place);
  t.match(await refusalOf(a.detach(vdev)), { message: `${vdev} on bus a is in use by a mount at ${place}` });
  await bench.sh('umount "$1"', place);
  await a.detach(vdev, '?wait=5');
}

async function nameAll(t: Test, { bench, a, caller }: Ground): Promise<void> {
  const { path, vdev } = await attachFor(t, a, { driver: 'aio', image: await bench.image('many.img', SIZE) });
  const fd = await caller.open(path, O_RDWR);
  const other = Caller.start(t, bench);
  const O_PATH = 0o10000000;
  await other.open(path, O_PATH);
  const loop = await bench.loop(path);
  const { status, stderr, stdout } = await bench.fusetap(['detach', '--bus', 'a', '--json', vdev]);
  t.equal(status, 4);
  const named = stderr
    .replace(/: close it there.*\n$/, '')
    .replace(/^.* is in use by /, '')
    .split(', ');
  const expected = [`pid ${caller.pid} (${COMMAND})`, `pid ${other.pid} (${COMMAND})`, loop];
  t.same(named.sort(), expected.sort());
  t.match(JSON.parse(stdout), { error: { code: 'BUSY', holders: [{}, {}, { loop }] } });
  await bench.sh('losetup -d "$1"', loop);
  await caller.call('close', fd);
  await other.end();
  await a.detach(vdev, '?wait=10');
}

/** A client that writes as fast as it can is cut off: what was acknowledged is in the image, or in the memory. */
async function cutOff(t: Test, { bench, a, b }: Ground, way: Way): Promise<void> {
  const [block, blocks] = [4096, SIZE / 4096];
  const image = await bench.image(`hammered-${way.driver}-${way.passthrough}.img`, SIZE);
  const { path, vdev } = await a.attach({ ...asked(way), image });
  // another vbd of its memory, so that the memory lives on
  const rest = way.writesImage ? null : await attachFor(t, b, { ...asked(way), image });
  const client = Caller.start(t, bench);
  const fd = await client.open(path, O_RDWR);
  const ended = client.call('hammer', fd, block, blocks);
  await eventually('it writes', 10_000, async () => (await firstWord(bench, rest?.path ?? image)) > 0n);
  await a.detach(vdev, '?force=1');
  const [count, errno] = JSON.parse((await ended) as string) as [number, string];
  t.equal(errno, 'EIO');
  t.equal(await client.call('pread', fd, 0, 1), 'EIO', 'for reading too');
  await client.end();

  const bytes = await readAll(bench, rest?.path ?? image);
  let stale = 0;
  for (let index = Math.max(0, count - blocks); index < count; index++) {
    const at = (index % blocks) * block;
    // the one that failed may have been done all the same
    const found = Number(bytes.readBigUInt64LE(at));
    if (found !== index && !(found === count && index % blocks === count % blocks)) stale++;
    if (!bytes.subarray(at, at + block).equals(Buffer.alloc(block, bytes.subarray(at, at + 8)))) stale++;
  }
  t.equal(stale, 0, `${count} writes were acknowledged, none is lost`);
}

/** by another process where it may be a vbd */
async function readAll(bench: Ground['bench'], path: string): Promise<Buffer> {
  await bench.sh('cat "$1" > read-back', path);
  const file = await open(bench.path('read-back'));
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

/** the number in the second block, which is 0 until something was written there */
async function firstWord(bench: Ground['bench'], path: string): Promise<bigint> {
  return BigInt(`0x${await bench.sh('dd if="$1" bs=8 skip=512 count=1 status=none | od -An -tx8 | tr -d " "', path)}`);
}

/** A mapping lives until its process ends; all else of the old file is cut off at once. */
async function cutOffMapping(t: Test, { bench, a, caller }: Ground): Promise<void> {
  const image = await bench.image('cut.img', SIZE);
  const { path, vdev } = await a.attach({ driver: 'aio', image, passthrough: 'on' });
  const fd = await caller.open(path, O_RDWR);
  const map = (await caller.call('mmap', fd, 4096, PROT_READ_WRITE, MAP_SHARED)) as number;
  await caller.call('mwrite', map, Buffer.from('before'));
  await a.detach(vdev, '?force=1');
  t.equal(await bench.sh('head -c 6 "$1"', image), 'before', 'what was stored is there');
  t.equal(await caller.call('pread', fd, 0, 1), 'EIO');
  t.equal(await caller.call('pwrite', fd, 0, Buffer.from('x')), 'EIO');
  t.equal(await caller.call('open', path, O_RDWR), 'ENOENT');
  t.same(await caller.call('mread', map, 6), Buffer.from('before'));
  await caller.call('munmap', map, 4096);
  await caller.call('close', fd);
}

async function failToFlush(t: Test, { bench, a }: Ground): Promise<void> {
  const filters = [{ name: 'error', value: `flush@${bench.path('broken')}` }];
  const [good, bad] = [
    await a.attach({ driver: 'aio', image: await bench.image('good.img', SIZE) }),
    await a.attach({ driver: 'aio', image: await bench.image('bad.img', SIZE), filters }),
  ];
  await bench.sh('printf x | dd of="$1" conv=notrunc status=none; touch broken', bad.path);
  const { status, stdout, stderr } = await bench.fusetap(['detach', '--bus', 'a', '--all', '--json']);
  t.equal(status, 1);
  t.match(stderr, new RegExp(`^fusetap: detached ${bad.vdev} of bus a, but not all is durable: [^\\n]+\\n$`));
  t.match(JSON.parse(stdout), [{ vdev: good.vdev }, { vdev: bad.vdev, error: { code: 'FAILED' } }]);
  t.match(await a.info(), { vbds: [] }, 'both are gone');

  const other = await startBusOn(bench, {}, 'failing');
  const vbd = await other.attach({ driver: 'aio', image: bench.path('bad.img'), filters });
  await bench.sh('printf x | dd of="$1" conv=notrunc status=none', vbd.path);
  const stopped = await bench.fusetap(['stop', '--bus', 'failing']);
  t.equal(stopped.status, 1, 'stop tells it as well');
  t.match(stopped.stderr, new RegExp(`${vbd.vdev} of bus failing, but not all is durable`));
  await bench.sh('rm broken');
}

async function flushBeforeEnd(t: Test, { bench, caller }: Ground, how: 'stop' | 'SIGTERM' | 'SIGINT'): Promise<void> {
  const bus = await startBusOn(bench, {}, how);
  const images = [await bench.image(`${how}-1.img`, SIZE), await bench.image(`${how}-2.img`, SIZE)];
  const fds: number[] = [];
  for (const image of images) fds.push(await caller.open((await bus.attach({ driver: 'aio', image })).path, O_RDWR));
  const { keeperPid, serverPid } = (await bus.info()) as { keeperPid: number; serverPid: number };
  const calls = ['pwrite64', 'fsync', 'fdatasync', 'umount2'];
  const trace = await Trace.start(t, bench, [keeperPid, serverPid], calls);
  for (const fd of fds) t.equal(await caller.call('pwrite', fd, 4096, Buffer.alloc(4096, 'p')), 4096);
  // stop refuses a vbd in use; a signal ends the bus without asking
  if (how === 'stop') for (const fd of fds) await caller.call('close', fd);
  if (how === 'stop') await bus.ask('POST', '/stop');
  else process.kill(keeperPid, how);
  await eventually('the bus is gone', 10_000, async () => !(await isThere(bus)));
  for (const fd of how === 'stop' ? [] : fds) await caller.call('close', fd);

  const events = await trace.end();
  const order = events.filter(({ phase }) => phase === 'end').map((event) => describe(event, images, bus));
  for (const index of [1, 2]) {
    const [flushed, written] = [order.lastIndexOf(`flush ${index}`), order.lastIndexOf(`write ${index}`)];
    t.ok(written >= 0 && written < flushed, `image ${index} is flushed after it was written`);
    t.ok(flushed < order.indexOf('umount'), 'and before the bus is unmounted');
  }
}

function describe({ call, path, words }: TraceEvent, images: string[], bus: Bus): string {
  if (call === 'umount2') return words.includes(bus.place.path) ? 'umount' : 'another umount';
  return `${call === 'pwrite64' ? 'write' : 'flush'} ${images.indexOf(path) + 1}`;
}

async function isThere(bus: Bus): Promise<boolean> {
  await delay(20);
  return (await bus.bench.busProcesses()).some((line) => line.includes(`"${bus.place.name}"`));
}
