/** A disk that hangs, or is dead, stops only its own vbd. */
import t from 'tap';
import type { VbdInfo } from '../../mount/control/interface.js';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { standStill } from '../e2e/stand-still.js';
import { startBus } from './bus.js';
import { abortAt, ServedImage } from './sick-disks.js';

t.setTimeout(180_000);
const skip = whyNot('qemu-storage-daemon', 'dd');
/** a command takes at most two seconds on an idle machine, and at most this on a busy one */
const LIMIT_MS = 15_000;
const SIZE = 8 << 20;

for (const how of ['stopped', 'dead'] as const) {
  void t.test(`an image whose server is ${how}`, { skip }, async (t) => {
    const bus = await startBus(t);
    const { bench } = bus;
    const served = await ServedImage.begin(t, bench, 'sick.img', SIZE);
    t.teardown(() => abortAt(served.path));
    await bench.succeed(['attach', served.path, 'xvda']);
    const plain = await bench.image('plain.img', SIZE);
    const path = await bench.succeed(['attach', plain, 'xvdb']);
    if (how === 'stopped') await served.stop();
    else await served.die();

    const done = async (what: string, ...words: string[]): Promise<string> => {
      const { status, stdout, stderr } = await bench.fusetap(words, { timeoutMs: LIMIT_MS });
      t.equal(status, 0, `${what}: ${stderr}`);
      return stdout;
    };
    const expected = how === 'stopped' ? 'not-answering' : 'gone';
    // the kernel answers from its cache until the last answer of the served file system expires
    await eventually('only the sick image is reported', 30_000, async () => {
      const [sick, well] = JSON.parse(await done('ls', 'ls', '--json')) as VbdInfo[];
      return sick?.imageState === expected && well?.imageState === null;
    });
    // more times than libuv's pool has threads
    for (let times = 0; times < 6; times++) {
      t.match(JSON.parse(await done('ls', 'ls', '--json')), [
        { vdev: 'xvda', changedOutside: false },
        { vdev: 'xvdb', changedOutside: false },
      ]);
    }
    t.match(await done('show', 'show', 'xvda'), /its file system (does not answer|answers with an error)/);
    await bench.sh('stat "$1"/xvda > stat.txt', bus.place.path);
    await bench.sh('dd if=/dev/urandom of="$1" bs=64k count=4 conv=notrunc,fsync status=none', path);
    await bench.sh('dd if="$1" of=/dev/null bs=64k status=none', path);
    await done('stats', 'stats', 'xvdb');
    await done('pause', 'pause', 'xvdb');
    await done('resume', 'resume', 'xvdb');
    await done('save', 'save', 'xvdb', bench.path('copy.img'));
    await done('detach', 'detach', 'xvdb');
    await done('attach', 'attach', plain, 'xvdb');
    if (how === 'stopped') {
      served.goOn();
      await eventually('all goes on', 20_000, async () => {
        const [first] = JSON.parse(await done('ls', 'ls', '--json')) as VbdInfo[];
        return first?.imageState === null;
      });
      await done('detach of the one that was sick', 'detach', 'xvda');
    }
  });
}
for (const count of [8, 20]) {
  void t.test(`${count} reads of each of two images that hang`, { skip }, async (t) => {
    const bus = await startBus(t);
    const { bench } = bus;
    const sick: ServedImage[] = [];
    const paths: string[] = [];
    for (const name of ['one.img', 'two.img']) {
      const served = await ServedImage.begin(t, bench, name, SIZE);
      t.teardown(() => abortAt(served.path));
      sick.push(served);
      paths.push(await bench.succeed(['attach', served.path]));
    }
    const plain = await bench.image('plain.img', SIZE, SIZE);
    const path = await bench.succeed(['attach', plain, 'xvdz']);
    for (const served of sick) await served.stop();
    const copy = (from: string, block: number) => {
      const words = [`if=${from}`, 'of=/dev/null', 'bs=4k', 'count=1', `skip=${block}`, 'status=none'];
      return bench.execute('dd', words, { timeoutMs: 100_000 });
    };
    const hung = paths.flatMap((from) => Array.from({ length: count }, (_, block) => copy(from, block)));
    // when they hang, and again when the server has given their permits to other threads
    for (let times = 0; times < 3; times++) {
      const { status, stderr } = await bench.execute(
        'dd',
        [`if=${plain}`, `of=${path}`, 'bs=64k', 'conv=notrunc,fsync', 'status=none'],
        { timeoutMs: LIMIT_MS },
      );
      t.equal(status, 0, `written: ${stderr}`);
      await bench.sh('cmp "$1" "$2"', plain, path);
      t.equal((await bench.fusetap(['ls', '--json'], { timeoutMs: LIMIT_MS })).status, 0, 'ls');
    }
    await bench.succeed(['pause', 'xvdz']);
    await bench.succeed(['resume', 'xvdz']);
    await bench.succeed(['detach', 'xvdz'], { timeoutMs: LIMIT_MS });
    for (const served of sick) served.goOn();
    const outcomes = await Promise.all(hung);
    t.ok(
      outcomes.every(({ status }) => status === 0),
      'all of them go on',
    );
    for (const vdev of ['xvda', 'xvdb']) await bench.succeed(['detach', '--wait', '5', vdev]);
  });
}
void t.test('--force detaches a vbd that hangs, and ends its bus', { skip }, async (t) => {
  const bus = await startBus(t, { FUSETAP_FLUSH_LIMIT_MS: '3000' });
  const { bench } = bus;
  const served = await ServedImage.begin(t, bench, 'sick.img', SIZE);
  t.teardown(() => abortAt(served.path));
  const path = await bench.succeed(['attach', served.path, 'xvda']);
  await bench.succeed(['attach', await bench.image('plain.img', SIZE), 'xvdb']);
  await bench.sh('printf x | dd of="$1" conv=notrunc status=none', path);
  await served.stop();
  const reading = bench.execute('dd', [`if=${path}`, 'of=/dev/null', 'bs=4k', 'count=1'], { timeoutMs: 100_000 });
  const { status, stderr } = await bench.fusetap(['detach', '--force', 'xvda'], { timeoutMs: 30_000 });
  t.equal(status, 1);
  t.match(stderr, /xvda was not flushed within 3 s/);
  await eventually('it is gone', 10_000, async () => {
    return (JSON.parse(await bench.succeed(['ls', '--json'])) as VbdInfo[]).every(({ vdev }) => vdev === 'xvdb');
  });
  await bench.succeed(['stop', '--force'], { timeoutMs: 30_000 });
  t.not((await reading).status, 0, 'its client gets an error');
  served.goOn();
});
void t.test('commands do not wait for a stopped keeper for ever', { skip: whyNot() }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  await bench.succeed(['attach', await bench.image('plain.img', SIZE), 'xvda']);
  const { keeperPid } = await bus.info();
  if (keeperPid === null) throw new Error('the bus has no keeper');
  await standStill(keeperPid);
  t.teardown(() => process.kill(keeperPid, 'SIGCONT'));
  const commands = [
    ['show', 'xvda'],
    ['detach', 'xvda'],
    ['stats', 'xvda'],
    ['pause', 'xvda'],
    ['stop', '--force'],
  ];
  await Promise.all(
    commands.map(async (words) => {
      const { status, stderr } = await bench.fusetap(words, { timeoutMs: 40_000 });
      t.equal(status, 1, words.join(' '));
      t.match(
        stderr,
        new RegExp(`bus 0 did not answer: its process ${keeperPid} is stopped: .*kill -CONT ${keeperPid}`),
      );
    }),
  );
  process.kill(keeperPid, 'SIGCONT');
});
