/** What is refused, and given up, because a disk hangs: nobody waits for it for ever. */
import t from 'tap';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';
import { abortAt, ServedImage } from './sick-disks.js';

t.setTimeout(180_000);
const skip = whyNot('qemu-storage-daemon', 'dd');
/** what a command of a quiet machine does in two seconds, a busy one does in this */
const LIMIT_MS = 15_000;
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
  served.stop();
  const refused = async (...words: string[]): Promise<void> => {
    const { status, stderr } = await bench.fusetap(words, { timeoutMs: 60_000 });
    t.equal(status, 4, `${words.join(' ')}: ${stderr}`);
    t.match(stderr, /sick\.img"?: its file system \(fuse\S*, mounted on \S*sick\.img\) has not answered for \d+ s/);
  };
  // more than there are threads in libuv's pool
  const all = [
    ...Array.from({ length: 18 }, () => refused('attach', served.path)),
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
    'no slot is kept',
  );
  served.goOn();
  await eventually('it can be attached', 20_000, async () => {
    return (await bench.fusetap(['attach', served.path, 'xvdc'])).status === 0;
  });
  await bench.succeed(['detach', 'xvdc']);
});
