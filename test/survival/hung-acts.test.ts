/** Commands that are refused or cancelled because a disk hangs: nobody waits for it for ever. */
import t from 'tap';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';
import { abortAt, ServedImage } from './sick-disks.js';

t.setTimeout(180_000);
const skip = whyNot('qemu-storage-daemon', 'dd');
/** a command takes at most a second on an idle machine, and at most this on a busy one */
const LIMIT_MS = 60_000;
const SIZE = 8 << 20;

void t.test('an image that hangs is not opened, and nobody else waits for it', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const served = await ServedImage.begin(t, bench, 'sick.img', SIZE);
  t.teardown(() => abortAt(served.path));
  const plain = await bench.image('plain.img', SIZE);
  await bench.succeed(['attach', plain, 'xvda']);
  await bench.succeed(['attach', await bench.image('paused.img', SIZE), 'xvdb']);
  await bench.succeed(['pause', 'xvdb']);
  await served.stop();
  const refused = async (...words: string[]): Promise<void> => {
    const { status, stderr } = await bench.fusetap(words, { timeoutMs: 60_000 });
    t.equal(status, 4, `${words.join(' ')}: ${stderr}`);
    t.match(stderr, /sick\.img"?: its file system \(fuse\S*, mounted on \S*sick\.img\) has not answered for \d+ s/);
  };
  // more than libuv's default number of threads
  const all = [
    ...Array.from({ length: 6 }, () => refused('attach', served.path)),
    refused('attach', served.path, 'xvdy', 'r'),
    refused('attach', `ram:${served.path}`),
    refused('save', 'xvda', served.path),
    refused('save', '--force', 'xvdb', served.path),
  ];
  await bench.succeed(['ls', '--json'], { timeoutMs: LIMIT_MS });
  await bench.succeed(['attach', await bench.image('other.img', SIZE), 'xvdz'], { timeoutMs: LIMIT_MS });
  await Promise.all(all);
  t.same(
    (await bench.list()).map(({ vdev }) => vdev),
    ['xvda', 'xvdb', 'xvdz'],
    'no slot stays reserved',
  );
  served.goOn();
  await eventually('it can be attached', 20_000, async () => {
    return (await bench.fusetap(['attach', served.path, 'xvdc'])).status === 0;
  });
  await bench.succeed(['detach', 'xvdc']);
});
void t.test('detach, pause and stop of a vbd whose disk hangs are refused', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const served = await ServedImage.begin(t, bench, 'sick.img', SIZE);
  t.teardown(() => abortAt(served.path));
  const path = await bench.succeed(['attach', served.path, 'xvda']);
  await bench.sh('printf x | dd of="$1" conv=notrunc status=none', path);
  await served.stop();
  const words = ['if=/dev/zero', `of=${path}`, 'bs=4k', 'count=1', 'conv=notrunc,fsync', 'status=none'];
  const refused = async (...args: string[]): Promise<void> => {
    const { status, stderr } = await bench.fusetap(args, { timeoutMs: 60_000 });
    t.equal(status, 4, `${args.join(' ')}: ${stderr}`);
    t.match(stderr, /the disk of xvda does not answer: \S*sick\.img"? on \S*sick\.img.*detach --force/s);
  };
  await refused('detach', 'xvda');
  await refused('stop');
  await refused('upgrade');
  const writing = bench.execute('dd', words, { timeoutMs: 100_000 });
  await eventually('the write is under way', 20_000, async () => (await opens()) > 0);
  await refused('pause', 'xvda');
  served.goOn();
  t.equal((await writing).status, 0, 'the vbd is still served');
  await eventually('the refused commands have left nothing', 20_000, async () => {
    const [vbd] = await bench.list();
    return vbd?.imageState === null && vbd.state === 'running';
  });
  await bench.sh('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc,fsync status=none', path);
  await bench.succeed(['pause', 'xvda']);
  await bench.succeed(['resume', 'xvda']);
  await bench.succeed(['detach', '--wait', '5', 'xvda']);

  async function opens(): Promise<number> {
    return (await bench.list())[0]?.opens ?? 0;
  }
});
void t.test('the server is killed while an image hangs', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const served = await ServedImage.begin(t, bench, 'sick.img', SIZE);
  t.teardown(() => abortAt(served.path));
  const path = await bench.succeed(['attach', served.path, 'xvda']);
  await bench.succeed(['attach', await bench.image('plain.img', SIZE), 'xvdb']);
  const { restarts, serverPid } = await bus.info();
  if (serverPid === null) throw new Error('the bus has no server');
  await served.stop();
  const words = ['if=/dev/zero', `of=${path}`, 'bs=4k', 'count=1', 'conv=notrunc,fsync', 'status=none'];
  const writing = bench.execute('dd', words, { timeoutMs: 100_000 });
  await eventually('the write is under way', 20_000, async () => ((await bench.list())[0]?.opens ?? 0) > 0);
  process.kill(serverPid, 'SIGKILL');
  for (const command of ['ls', 'show', 'stats']) {
    const { status, stderr } = await bench.fusetap([command], { timeoutMs: LIMIT_MS });
    t.equal(status, 0, `${command}: ${stderr}`);
  }
  t.equal((await bench.execute('ps', ['-eo', 'pid,args'], { timeoutMs: LIMIT_MS })).status, 0, 'ps');
  served.goOn();
  t.equal((await writing).status, 0, 'the write is done');
  await bus.settled(restarts + 1);
  for (const vdev of ['xvda', 'xvdb']) {
    await bench.sh('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc,fsync status=none', `${bus.place.path}/${vdev}`);
    await bench.succeed(['detach', '--wait', '10', vdev]);
  }
});
