/**
 * Saving and resetting: a copy is whole, sparse, durable and of one moment, or there is none, whatever happens to the
 * one who makes it and whoever writes meanwhile.
 */
import { readdir, readFile, readlink, stat } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { type Bus, startBusOn } from '../survival/bus.js';
import { Client } from './client.js';
import { collect, eventually } from './command.js';
import { OTHERS, onDefaultTransport, storiesFor, type TestTransport } from './fixtures.js';
import { attach, detachAll, MIB, openStage, pause, reset, resume, type Stage, save } from './ram-stage.js';

t.setTimeout(240_000);

const SIZE = 8 * MIB;
/** reads of a vbd with it are as slow as this, and a copy of it so many times slower */
const SLOW = { filters: [{ name: 'delay', value: '60' }] };

type Buses = Stage<'a' | 'b'>;
type Story = (t: Test, stage: Buses) => Promise<void>;

const STORIES: Record<string, Story> = {
  'a copy is sparse, and takes the place of a file as that was': saveSparse,
  'saved onto its own image': saveOntoImage,
  'saved from aio and sync': saveOthers,
  'no write of either bus falls into a copy': saveConsistently,
  'who is paused stays paused': keepPaused,
  'a server that dies while it copies': loseServer,
  reset: resetAll,
};
/** what does not depend on who runs the buses, and what needs passthrough */
const AS_ROOT: Record<string, Story> = {
  'two copies of one memory at once, from two buses': saveTwice,
  'a keeper that dies while it copies leaves nothing half, and holds nobody': loseSaver,
  'a copy that is given up leaves nothing': giveUp,
  'a reset that fails leaves all as it was': failReset,
};

onDefaultTransport(t, ['cmp', 'perl', 'dd'], copy, OTHERS);

async function copy(t: Test, transport: TestTransport): Promise<void> {
  const stage = await openStage(t, ['a', 'b'], { FUSETAP_RAM_LIMIT: '40M' }, transport);
  const stories = storiesFor(transport, STORIES, AS_ROOT);
  for (const [name, story] of Object.entries(stories)) {
    await t.test(name, async (t) => {
      await story(t, stage);
      await detachAll(stage.bus.a, stage.bus.b);
      await stage.isEmpty(t);
      await stage.bench.sh('rm -f *.img');
      t.same(await leftovers(stage), [], 'no temporary files');
    });
  }
  await stage.end(t);
}

async function leftovers({ bench }: Buses): Promise<string[]> {
  return (await readdir(bench.directory)).filter((name) => name.includes('.img'));
}

/** Its keeper has made the file, which has no name yet. */
async function copyBegun(bus: Bus): Promise<void> {
  const { keeperPid } = await bus.info();
  await eventually('the copy has begun', 10_000, async () => {
    const fds = await readdir(`/proc/${keeperPid}/fd`);
    const links = await Promise.all(fds.map((fd) => readlink(`/proc/${keeperPid}/fd/${fd}`).catch(() => '')));
    return links.some((link) => link.startsWith(`${bus.bench.directory}/#`));
  });
}

async function saveSparse(t: Test, { bench, bus: { a, b } }: Buses): Promise<void> {
  const image = await bench.image('golden.img', 64 * MIB, 4 * MIB);
  const { path, vdev } = await attach(a, { image, passthrough: 'off' });
  await bench.sh('head -c 1M /dev/urandom | dd of="$1" bs=1M seek=40 conv=notrunc status=none', path);
  const copy = bench.path('copy.img');
  t.equal(await bench.succeed(['save', '--bus', 'a', vdev, 'copy.img']), copy);
  await bench.sh('cmp "$1" copy.img; ! cmp -s "$2" copy.img', path, image);
  const { blocks, mode } = await stat(copy);
  t.equal(blocks * 512, 5 * MIB, 'sparse');
  t.equal(mode & 0o777, 0o600);

  t.match(await bench.fusetap(['save', '--bus', 'a', vdev, 'copy.img']), { status: 4, stderr: /there already/ });
  // only root can give a file away
  if (bench.transport.runner === undefined) await bench.sh('chown 12:34 copy.img');
  await bench.sh('chmod 604 copy.img; ln -s copy.img link.img');
  const { uid, gid } = await stat(copy);
  await save(a, vdev, bench.path('link.img'), { force: true });
  t.match(await stat(copy), { uid, gid, mode: 0o100604 }, 'owner and mode are kept');
  await t.rejects(save(a, vdev, bench.directory, { force: true }), { code: 'USAGE' });
  await t.rejects(save(a, vdev, path), { code: 'USAGE', message: /on the bus itself/ });
  await t.rejects(save(a, vdev, bench.path('nowhere/copy.img')), { code: 'NOT_FOUND' });
  await attach(b, { driver: 'aio', image: copy });
  await t.rejects(save(a, vdev, copy, { force: true }), { code: 'BUSY', message: /attached with mode w/ });
}

async function saveOntoImage(t: Test, { bench, bus: { a, b } }: Buses): Promise<void> {
  const image = await bench.image('golden.img', SIZE, MIB);
  const { path, vdev } = await attach(a, { image, passthrough: 'off' });
  await attach(b, { image, passthrough: 'off' });
  await bench.sh('printf saved | dd of="$1" conv=notrunc status=none', path);
  const before = await stat(image);
  await save(a, vdev, image, { force: true });
  const { ino } = await stat(image);
  t.not(ino, before.ino);
  await bench.sh('cmp "$1" "$2"', path, image);
  await attach(b, { image });
  const shares = new Set((await bench.list()).map(({ share }) => share));
  t.equal(shares.size, 1, 'the memory is now the one of the new file');
  t.ok([...shares][0]?.endsWith(`:${ino}`));
}

async function saveOthers(t: Test, { bench, bus: { a } }: Buses): Promise<void> {
  for (const driver of ['aio', 'sync']) {
    const image = await bench.image(`${driver}.img`, SIZE, MIB);
    const { path, vdev } = await attach(a, { driver, image });
    await save(a, vdev, bench.path(`${driver}-copy.img`));
    await bench.sh('cmp "$1" "$2"', path, `${driver}-copy.img`);
    await t.rejects(save(a, vdev, image, { force: true }), { code: 'BUSY' }, 'its image is in use');
    await t.rejects(reset(a, vdev), { code: 'UNSUPPORTED' });
  }
}

/** Writes its number to a block at the start and then to one at the end, over and over, through two files in turn. */
const WRITER = `
use strict;
use Fcntl;
my ($place, $size, @files) = @ARGV;
my @handles = map { sysopen(my $f, $_, O_RDWR) or die "$_: $!"; $f } @files;
for (my $n = 1; ; $n++) {
  for my $at ($place, $size - 512 - $place) {
    my $f = $handles[$n % @handles];
    sysseek($f, $at, 0);
    syswrite($f, pack("V", $n) . "\\0" x 508) == 512 or die "write: $!";
  }
}`;

/** Runs work while two programs write to the memory, one through each bus and one through both. */
async function whileWritten(stage: Buses, paths: readonly [string, string], work: () => Promise<void>): Promise<void> {
  const { bench } = stage;
  const writers = [[paths[0]], [paths[1]], [...paths]].map((files, i) =>
    bench.startProgram('perl', ['-e', WRITER, String(i * 4096), String(SIZE), ...files]),
  );
  const ends = Promise.all(writers.map(collect));
  try {
    await work();
  } finally {
    for (const child of writers) child.kill('SIGTERM');
    await ends;
  }
  const failed = (await ends).find(({ signal }) => signal !== 'SIGTERM');
  if (failed !== undefined) throw new Error(failed.stderr);
}

/** In a copy of one moment the number at the end is that at the start, or the one before. */
async function isOfOneMoment(t: Test, path: string): Promise<void> {
  const copy = await readFile(path);
  for (const at of [0, 4096, 8192]) {
    const [first, last] = [copy.readUInt32LE(at), copy.readUInt32LE(SIZE - 512 - at)];
    t.ok(first > 0 && (first === last || first === last + 1), `${first}, then ${last}`);
  }
}

async function bothWrite(stage: Buses): Promise<[string, string]> {
  const { bench, bus } = stage;
  // the blocks are numbers from the start
  const image = await bench.image('golden.img', SIZE);
  await bench.sh('head -c 6M /dev/urandom | dd of="$1" bs=1M seek=1 conv=notrunc status=none', image);
  const [here, there] = [
    await attach(bus.a, { image, passthrough: 'off' }),
    await attach(bus.b, { image, passthrough: 'off' }),
  ];
  return [here.path, there.path];
}

async function saveConsistently(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const paths = await bothWrite(stage);
  await whileWritten(stage, paths, async () => {
    await allHaveWritten(stage, paths[0]);
    // how writers are held does not depend on whose they are
    for (let round = 0; round < (bench.transport.runner === undefined ? 12 : 4); round++) {
      await save(round % 2 ? bus.a : bus.b, 'xvda', bench.path('copy.img'), { force: true });
      await isOfOneMoment(t, bench.path('copy.img'));
    }
  });
}

async function allHaveWritten({ bench }: Buses, path: string): Promise<void> {
  const first = '! head -c 8200 "$1" | od -An -v -tu4 -w4 | sed -n "1p;1025p;2049p" | grep -qx " *0"';
  await eventually('all have written', 10_000, async () => (await bench.try(first, path)).status === 0);
}

/** One is slow, and the other comes and goes meanwhile: it must not let go whom the slow one holds. */
async function saveTwice(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const paths = await bothWrite(stage);
  await whileWritten(stage, paths, async () => {
    await allHaveWritten(stage, paths[0]);
    let meanwhile = 0;
    // on a slow machine the slow one must be slower
    for (let delayMs = 60; meanwhile === 0 && delayMs < 10_000; delayMs *= 4) {
      const filters = [{ name: 'delay', value: String(delayMs) }];
      const slow = await attach(bus.a, { image: bench.path('golden.img'), passthrough: 'off', filters });
      meanwhile = await saveBeside(t, stage, slow.vdev);
      await isOfOneMoment(t, bench.path('slow.img'));
      await bus.a.detach(slow.vdev, '?wait=5');
    }
    t.ok(meanwhile > 0, `${meanwhile} copies in the time of the slow one`);
  });
}

/** @returns how many copies were made in the time of the slow one */
async function saveBeside(t: Test, { bench, bus }: Buses, slowVdev: string): Promise<number> {
  let isDone = false;
  const long = save(bus.a, slowVdev, bench.path('slow.img'), { force: true }).finally(() => {
    isDone = true;
  });
  let meanwhile = 0;
  while (!isDone) {
    await save(bus.b, 'xvda', bench.path('copy.img'), { force: true });
    await isOfOneMoment(t, bench.path('copy.img'));
    // what the user pauses and resumes is not let go either
    await pause(bus.b, 'xvda');
    await resume(bus.b, 'xvda');
    if (!isDone) meanwhile += 1;
  }
  await long;
  return meanwhile;
}

async function keepPaused(t: Test, { bench, bus: { a, b } }: Buses): Promise<void> {
  const image = await bench.image('golden.img', SIZE, MIB);
  const here = await attach(a, { image, passthrough: 'off' });
  const there = await attach(b, { image, passthrough: 'off' });
  await pause(b, there.vdev);
  await save(a, here.vdev, bench.path('copy.img'));
  t.match((await a.info()).vbds, [{ state: 'running' }]);
  t.match((await b.info()).vbds, [{ state: 'paused' }], 'the user has not resumed it');
  await resume(b, there.vdev);
  t.match((await b.info()).vbds, [{ state: 'running' }]);
}

async function loseSaver(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const mortal = await startBusOn(bench, { FUSETAP_RAM_LIMIT: '40M' }, 'mortal');
  const image = await bench.image('golden.img', SIZE, SIZE);
  const slow = await attach(mortal, { image, passthrough: 'off', ...SLOW });
  const other = await attach(bus.b, { image, passthrough: 'off' });
  const saving = save(mortal, slow.vdev, bench.path('copy.img')).catch((error: unknown) => error);
  await copyBegun(mortal);
  t.match((await bus.b.info()).vbds, [{ state: 'paused' }]);
  const { keeperPid, serverPid } = await mortal.info();
  for (const pid of [keeperPid, serverPid]) process.kill(pid as number, 'SIGKILL');
  t.match(await saving, { code: 'FAILED' });
  t.same(await leftovers(stage), ['golden.img'], 'no half file is left, under any name');
  await bench.sh('printf later | dd of="$1" conv=notrunc status=none', other.path);
  t.match((await bus.b.info()).vbds, [{ state: 'running' }], 'nobody is held for a dead one');
  await bench.succeed(['stop', '--bus', 'mortal']);
}

async function loseServer(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('golden.img', SIZE, SIZE);
  const { path, vdev } = await attach(bus.a, { image, passthrough: 'off', ...SLOW });
  const saving = save(bus.a, vdev, bench.path('copy.img')).then(
    () => null,
    (error: unknown) => error,
  );
  await copyBegun(bus.a);
  process.kill(await bus.a.serverPid(), 'SIGKILL');
  const error = await saving;
  t.comment(error === null ? 'the next server made the copy' : String(error));
  if (error === null) await bench.sh('cmp "$1" copy.img', image);
  else t.same(await leftovers(stage), ['golden.img'], 'nothing is left of the copy');
  await bench.sh('printf later | dd of="$1" conv=notrunc status=none', path);
}

async function giveUp(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('golden.img', SIZE, SIZE);
  const { path, vdev } = await attach(bus.a, { image, passthrough: 'off', ...SLOW });
  const given = new AbortController();
  const saving = save(bus.a, vdev, bench.path('copy.img'), { signal: given.signal });
  const refused = t.rejects(saving);
  await copyBegun(bus.a);
  given.abort();
  await refused;
  await eventually('nothing is left of it', 20_000, async () => (await leftovers(stage)).length === 1);
  await bench.sh('printf later | dd of="$1" conv=notrunc status=none', path);
}

async function resetAll(t: Test, { bench, bus: { a, b }, canPassThrough }: Buses): Promise<void> {
  const image = await bench.image('golden.img', SIZE, MIB);
  for (const choice of canPassThrough ? (['off', 'on'] as const) : (['off'] as const)) {
    const { path, vdev } = await attach(a, { image, passthrough: choice });
    await bench.sh('printf dirt | dd of="$1" conv=notrunc status=none', path);
    t.match(await reset(a, vdev), { path, vdev, passthrough: choice === 'on' });
    await bench.sh('cmp "$1" "$2"', path, image);

    await bench.sh('printf dirt | dd of="$1" conv=notrunc status=none; cat "$1" > dirty', path);
    const other = await attach(b, { image, passthrough: choice });
    await t.rejects(reset(a, vdev), { code: 'BUSY', message: /shared with other vbds/ });
    await b.detach(other.vdev);
    await bench.sh('mv "$1" away', image);
    await t.rejects(reset(a, vdev), { code: 'NOT_FOUND' });
    await bench.sh('mv away "$2"; cmp "$1" dirty', path, image);
    const holder = await Client.open(t, bench, 'read', path);
    await t.rejects(reset(a, vdev), { code: 'BUSY', holders: [{ pid: holder.pid, command: 'perl' }] });
    t.equal(await holder.call('read', 0, 4), '4');
    await holder.release();
    await bench.sh('cmp "$1" dirty', path);
    await a.detach(vdev, '?wait=5');
  }
}

/** The new copy fits, but not as what it has to be. */
async function failReset(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('golden.img', 10 * MIB, MIB);
  const { path, vdev } = await attach(bus.a, { image, passthrough: 'on' });
  await bench.sh('head -c 9M /dev/urandom | dd of="$1" bs=1M conv=notrunc status=none; cat "$1" > dirty', path);
  await bench.sh('truncate -s 41M "$1"', image);
  await t.rejects(reset(bus.a, vdev), { code: 'UNSUPPORTED', message: /do not fit below the ram limit/ });
  t.match((await bus.a.info()).vbds, [{ vdev, passthrough: true, size: 10 * MIB }]);
  await bench.sh('cmp "$1" dirty', path);
  t.match(await stage.memory(), { usedBytes: 10 * MIB, images: [{ configuredBytes: 10 * MIB }] });
  const other = await attach(bus.a, { image, passthrough: 'on' });
  await bench.sh('cmp "$1" dirty', other.path);
  await bus.a.detach(other.vdev);
  await bench.sh('truncate -s 10M "$1"', image);
  await reset(bus.a, vdev);
  await bench.sh('cmp "$1" "$2"', path, image);
}
