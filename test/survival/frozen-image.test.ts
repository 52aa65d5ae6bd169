/** The file system of an image is frozen while a write to it is under way: all other vbds work. */
import t from 'tap';
import { eventually } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';

t.setTimeout(180_000);
const skip = whyNot('losetup', 'mkfs.ext4', 'fsfreeze', 'dd');
/** a command takes at most two seconds on an idle machine, and at most this on a busy one */
const LIMIT_MS = 60_000;
const SIZE = 8 << 20;

void t.test('a frozen file system stops only its own vbd', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const directory = await bench.makeDirectory('frozen');
  await bench.sh('mkfs.ext4 -q -F "$1"; mount -o loop "$1" "$2"', await bench.image('fs.ext4', 4 * SIZE), directory);
  t.teardown(() => bench.try('fsfreeze -u "$1" 2>&-; true', directory));
  const path = await bench.succeed(['attach', await bench.image('frozen/sick.img', SIZE), 'xvda']);
  const plain = await bench.image('plain.img', SIZE);
  await bench.succeed(['attach', plain, 'xvdb']);
  await bench.sh('fsfreeze -f "$1"', directory);
  const words = ['if=/dev/zero', `of=${path}`, 'bs=64k', 'count=32', 'conv=notrunc,fsync', 'status=none'];
  const writing = bench.execute('dd', words, { timeoutMs: 150_000 });
  await eventually('the write is under way', 20_000, async () => ((await bench.list())[0]?.opens ?? 0) > 0);
  const commands = [
    ['ls'],
    ['show', 'xvdb'],
    ['pause', 'xvdb'],
    ['resume', 'xvdb'],
    ['save', 'xvdb', bench.path('copy.img')],
    ['detach', 'xvdb'],
    ['attach', plain, 'xvdb'],
    ['ls'],
  ];
  for (const command of commands) {
    const { status, stderr } = await bench.fusetap(command, { timeoutMs: LIMIT_MS });
    t.equal(status, 0, `${command.join(' ')}: ${stderr}`);
  }
  const upgrade = await bench.fusetap(['upgrade'], { timeoutMs: 60_000 });
  t.equal(upgrade.status, 4, 'an upgrade is refused, because it would stop all vbds');
  t.match(upgrade.stderr, /a disk of bus 0 has not answered (a request|\d+ requests) for 5 s/);
  await bench.sh('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc,fsync status=none', `${bus.place.path}/xvdb`);
  await bench.sh('fsfreeze -u "$1"', directory);
  t.equal((await writing).status, 0, 'the write goes on');
  await bench.succeed(['upgrade']);
  await bench.succeed(['detach', '--wait', '10', 'xvda']);
});
