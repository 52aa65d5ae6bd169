/**
 * An archive is unpacked to a file system on a loop device on a vbd, while the server is killed again and again.
 * Afterwards all files are there, and fsck finds no error.
 */
import t from 'tap';
import { collect, start } from '../e2e/command.js';
import { whyNot } from '../e2e/fixtures.js';
import { startBus } from './bus.js';

t.setTimeout(120_000);

const skip = whyNot('losetup', 'mkfs.ext4', 'e2fsck', 'tar', 'diff');

void t.test('ext4 with an untar running', { skip }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const image = await bench.image('disk.img', 256 << 20);
  const vbd = await bus.attach({ driver: 'aio', image });
  const loop = await bench.loop(vbd.path);
  const directory = await bench.makeDirectory('mnt');
  await bench.sh('mkfs.ext4 -q "$1"; mount "$1" "$2"', loop, directory);
  await bench.sh(
    'mkdir src; cd src; for d in 1 2 3 4 5 6; do mkdir $d; for f in $(seq 40); do head -c $((f * 5000)) /dev/urandom > $d/$f; done; done; tar cf ../src.tar .',
  );

  const unpack =
    'i=0; while [ ! -e "$2" ]; do i=$((i+1)); mkdir -p "$1/$((i % 3))"; tar xf src.tar -C "$1/$((i % 3))"; sync -f "$1"; done; echo $i';
  const tar = collect(start('sh', ['-euc', unpack, 'sh', directory, bench.path('stop')], bench.options()));
  await bus.disturb(10, 'kill');
  await bus.disturb(3, 'upgrade');
  await bench.sh('touch stop');
  const { status, stdout, stderr } = await tar;
  t.equal(status, 0, stderr);
  t.comment(`unpacked ${stdout.trim()} times`);

  await bench.sh('umount "$1"; e2fsck -fn "$2"; mount -o ro "$2" "$1"', directory, loop);
  await bench.sh('for copy in "$1"/[012]; do diff -r src "$copy"; done; umount "$1"; losetup -d "$2"', directory, loop);
  await bus.detach(vbd.vdev, '?wait=5');
  t.match(await bench.try('e2fsck -fn "$1"', image), { status: 0 }, 'the image itself is clean');
});
