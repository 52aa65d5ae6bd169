/**
 * One memory for all vbds of an image, on any bus: what is written through one of them, any way, is what all others
 * read. It is found by the image's identity or by a name, however many come and go at once.
 */
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { OTHERS, onDefaultTransport, storiesFor, type TestTransport } from './fixtures.js';
import { attach, detachAll, MIB, openStage, type Stage } from './ram-stage.js';

t.setTimeout(240_000);

const PEER = fileURLToPath(new URL('./ram-peer.js', import.meta.url));
const RACER = fileURLToPath(new URL('./ram-racer.js', import.meta.url));
/** how many programs attach and detach at once, and how often all of them together; fewer for who is not root */
const RACES = { racers: 8, races: 50 };
const SOME_RACES = { racers: 3, races: 12 };

type Buses = Stage<'a' | 'b'>;
type Story = (t: Test, stage: Buses) => Promise<void>;

const STORIES: Record<string, Story> = {
  'two buses see one image': seeOneImage,
  'an image is shared under a name': shareUnderName,
  'a new file is not taken for a removed one that had its inode': tellFilesApart,
  'many at once, from several processes': attachAtOnce,
};
/** what does not depend on who runs the buses */
const AS_ROOT: Record<string, Story> = { 'attached and detached, over and over': attachOverAndOver };

onDefaultTransport(t, ['mkfs.ext4', 'dumpe2fs', 'cmp'], share, OTHERS);

async function share(t: Test, transport: TestTransport): Promise<void> {
  const stage = await openStage(t, ['a', 'b'], {}, transport);
  const stories = storiesFor(transport, STORIES, AS_ROOT);
  for (const [name, story] of Object.entries(stories)) {
    await t.test(name, async (t) => {
      await story(t, stage);
      await stage.isEmpty(t);
    });
  }
  await stage.end(t);
}

async function seeOneImage(t: Test, stage: Buses): Promise<void> {
  const { bench, canPassThrough, passthrough } = stage;
  const { a, b } = stage.bus;
  const image = await bench.image('golden.img', 16 * MIB);
  const before = await readFile(image);
  const wish = { driver: 'ram', image };
  const passed = [await attach(a, { ...wish, passthrough }), await attach(b, { ...wish, passthrough })] as const;
  const uuidOf = (path: string): Promise<string> => bench.sh('dumpe2fs -h "$1" 2>&1 | grep UUID', path);
  await bench.sh('mkfs.ext4 -q -F "$1"', passed[0].path);
  t.match(await uuidOf(passed[1].path), /UUID: +[0-9a-f-]{36}/, 'mkfs on one, dumpe2fs on the other');
  t.equal(await uuidOf(passed[1].path), await uuidOf(passed[0].path));

  const threads = [
    await attach(a, { ...wish, passthrough: 'off' }),
    await attach(b, { ...wish, passthrough: 'off' }),
  ] as const;
  t.same(
    [...passed, ...threads].map((vbd) => vbd.passthrough),
    [canPassThrough, canPassThrough, false, false],
  );
  const seed = String(Date.now() % 1e9);
  t.comment(`seed ${seed}`);
  const [one, other] = [passed, threads].map((pair) => pair.map(({ path }) => path)) as [string[], string[]];
  const rounds: Record<string, string[]> = canPassThrough
    ? {
        'passed through, calls and mappings': [one.join(':')],
        'by threads': ['', ...other],
        'both ways at once': [one.join(':'), ...other],
      }
    : { 'by threads': ['', ...one, ...other] };
  for (const [how, files] of Object.entries(rounds)) {
    const { status, stderr } = await bench.execute(process.execPath, [PEER, seed, '300', ...files]);
    t.equal(status, 0, `${how}: ${stderr}`);
  }

  for (const { share } of [...passed, ...threads]) t.match(share, /^\d+:\d+:\d+$/, 'by the identity of the file');
  t.equal(new Set([...passed, ...threads].map(({ share }) => share)).size, 1);
  const { images } = await stage.memory();
  t.match(images, [{ image, configuredBytes: 16 * MIB }]);
  const holders = images.flatMap((each) => each.holders.map(({ bus, vdev }) => `${bus}/${vdev}`));
  t.same(new Set(holders), new Set(['a/xvda', 'a/xvdb', 'b/xvda', 'b/xvdb']));
  await detachAll(a);
  await bench.sh('! cmp -s "$1" "$2"; cmp "$1" "$3"', passed[1].path, image, threads[1].path);
  await detachAll(b);
  t.ok(before.equals(await readFile(image)), 'the image is untouched');
}

async function shareUnderName(t: Test, stage: Buses): Promise<void> {
  const { bench } = stage;
  const { a, b } = stage.bus;
  const image = await bench.image('first.img', MIB, MIB);
  const twin = await bench.image('twin.img', MIB);
  const other = await bench.image('other.img', 2 * MIB);
  const dummy = await bench.image('dummy.img', 0);
  const gold = { driver: 'ram', share: 'gold' };
  await t.rejects(attach(a, { ...gold, image: null }), {
    code: 'USAGE',
    message: /nothing is shared as gold.*no image/,
  });
  await t.rejects(attach(a, { ...gold, image: dummy }), { code: 'USAGE', message: /nothing is shared as gold.*empty/ });
  await t.rejects(attach(a, { ...gold, image, share: '../gold' }), { code: 'USAGE', message: /not a name/ });
  await t.rejects(attach(a, { ...gold, image, driver: 'aio' }), { code: 'USAGE', message: /no memory to share/ });

  const first = await attach(a, { ...gold, image });
  await bench.sh('printf joined | dd of="$1" conv=notrunc status=none', first.path);
  const joined = [];
  for (const same of [image, dummy, null]) {
    const vbd = await attach(b, { ...gold, image: same });
    t.equal(vbd.notes, undefined, `${same} joins`);
    joined.push(vbd);
  }
  const remarked = await attach(b, { ...gold, image: twin });
  t.match(remarked, { notes: [/gold is a copy of .*first\.img.*twin\.img.*same size/] }, 'with a remark');
  for (const { path, share } of [...joined, remarked]) {
    t.equal(share, 'gold');
    await bench.sh('cmp "$1" "$2"', path, first.path);
  }
  const refusal = { code: 'BUSY', message: /first\.img with 1048576 bytes.*other\.img with 2097152/ };
  await t.rejects(attach(b, { ...gold, image: other }), refusal);
  const own = await attach(a, { driver: 'ram', image });
  await bench.sh('cmp "$1" "$2"', own.path, image);
  t.equal((await stage.memory()).images.length, 2, 'without the name it is another memory');

  t.comment('the command line says it too');
  const words = ['attach', '--bus', 'b', `ram:${twin}`, '--share', 'gold'];
  t.match(await bench.fusetap(words), { status: 0, stderr: /gold is a copy of .*first\.img/, stdout: /^\/.*\n$/ });
  const wrong = ['attach', '--bus', 'b', `ram:${other}`, '--share', 'gold'];
  t.match(await bench.fusetap(wrong), { status: 4, stderr: /first\.img with 1048576 bytes/, stdout: '' });
  await detachAll(stage.bus.a, stage.bus.b);
}

async function tellFilesApart(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('reused.img', MIB, MIB);
  await attach(bus.a, { driver: 'ram', image });
  await bench.sh('rm "$1"; head -c 1M /dev/urandom > "$1"', image);
  const { path } = await attach(bus.b, { driver: 'ram', image });
  await bench.sh('cmp "$1" "$2"', path, image);
  t.equal((await stage.memory()).images.length, 2);
  await detachAll(stage.bus.a, stage.bus.b);
}

async function attachOverAndOver(t: Test, stage: Buses): Promise<void> {
  const { bench, bus } = stage;
  const image = await bench.image('again.img', 4 * MIB, MIB);
  const { keeperPid, serverPid } = await bus.a.info();
  const open = (): Promise<string> =>
    bench.sh('ls /proc/$1/fd /proc/$2/fd | wc -l', String(keeperPid), String(serverPid));
  const ROUNDS = 20;
  let before = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const { path, vdev } = await attach(bus.a, { driver: 'ram', image });
    await bench.sh('head -c 5 "$1" > /dev/null', path);
    await bus.a.detach(vdev);
    if (round === 0) before = Number(await open());
  }
  // one or two come and go with whoever asks just then
  const more = Number(await open()) - before;
  t.ok(more < ROUNDS / 2, `descriptors left open: ${more}`);
}

async function attachAtOnce(t: Test, stage: Buses): Promise<void> {
  const { bench } = stage;
  const image = await bench.image('raced.img', 64 * MIB, 32 * MIB);
  const { racers, races } = bench.transport.runner === undefined ? RACES : SOME_RACES;
  const ends = Array.from({ length: racers }, async (_, i) => {
    const times = Math.floor(races / racers) + (i < races % racers ? 1 : 0);
    // one in eight goes to a bus that begins and ends with it
    const buses = ['a', 'b', i % 2 ? 'passing' : 'a', 'b', 'a', 'b', 'a'].slice(i % 3);
    return bench.execute(process.execPath, [RACER, bench.runtimeDir, image, String(times), ...buses]);
  });
  for (const { status, stderr } of await Promise.all(ends)) t.equal(status, 0, stderr);
  t.same(await bench.list(), []);
}
