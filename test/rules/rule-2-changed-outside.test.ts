/** Rule 2, the part that no lock can enforce: a change by a program that ignores locks is found afterwards. */
import t from 'tap';
import { onDefaultTransport, openBench, whyNot } from '../e2e/fixtures.js';
import { startBus, startBusOn } from '../survival/bus.js';

t.setTimeout(60_000);

/** the attach, the write and the time are the same to a file system that cuts times to 10 ms */
const TICK = 'sleep 0.02';
/** a write by a program that ignores locks */
const SCRIBBLE = `${TICK}; printf x | dd of="$1" bs=1 seek=100 conv=notrunc status=none`;

t.test('an image that was changed outside', (t) => {
  onDefaultTransport(t, ['dd'], async (t, transport) => {
    const bench = await openBench(t, transport);
    const bus = await startBusOn(bench);
    const isChanged = async (): Promise<boolean | undefined> => (await bus.info()).vbds[0]?.changedOutside;

    for (const passthrough of ['off', 'on'] as const) {
      const image = await bench.image(`read-${passthrough}.img`, 1 << 20, 1 << 20);
      await bus.attach({ driver: 'aio', image, mode: 'r', passthrough });
      t.equal(await isChanged(), false, `mode r, passthrough ${passthrough}`);
      await bench.sh(`${TICK}; chmod 640 "$1"; mv "$1" "$1.away"; mv "$1.away" "$1"`, image);
      t.equal(await isChanged(), false, 'mode and name are no bytes');
      await bench.sh(SCRIBBLE, image);
      t.equal(await isChanged(), true, 'the size and the inode are as they were');
      const { stdout, stderr } = await bench.fusetap(['detach', 'xvda', '--json']);
      t.equal(JSON.parse(stdout)[0].changedOutside, true);
      t.equal(stderr, `fusetap: ${image} was changed by somebody else while it was attached as xvda of bus 0\n`);
    }

    const image = await bench.image('written.img', 1 << 20, 1 << 20);
    const { path } = await bus.attach({ driver: 'aio', image });
    await bench.sh(`${TICK}; dd if=/dev/zero of="$1" bs=4k count=8 conv=notrunc,fsync status=none`, path);
    await bench.sh('fallocate --punch-hole --offset 8192 --length 8192 "$1"', path);
    await bench.sh('fallocate --offset 65536 --length 8192 "$1"', path);
    t.equal(await isChanged(), false, 'all of it was our own doing');
    await bus.killServer();
    t.equal(await isChanged(), false, 'the next server knows');
    await bench.sh(SCRIBBLE, image);
    t.equal(await isChanged(), true);
    await bench.sh('touch -d 2001-01-01 "$1"', image);
    t.equal(await isChanged(), true, 'set back to before it was attached');
    await bench.sh('printf x | dd of="$1" bs=1 seek=100 conv=notrunc status=none', path);
    t.equal(await isChanged(), true, 'what was seen once is not forgotten when the vbd is written to');
    await bus.detach('xvda');

    const { path: shared } = await bus.attach({ driver: 'aio', image, mode: 'w!' });
    await bus.attach({ driver: 'aio', image, mode: 'w!' });
    await bench.sh(`${TICK}; printf x | dd of="$1" bs=1 conv=notrunc status=none`, shared);
    t.strictSame(
      (await bus.info()).vbds.map(({ changedOutside }) => changedOutside),
      [false, false],
      'two vbds that may both write know of each other',
    );
  });
  t.end();
});

t.test('writes of its own are no change from outside', { skip: whyNot('losetup', 'mkfs.ext4', 'dd') }, async (t) => {
  const bus = await startBus(t);
  const { bench } = bus;
  const isChanged = async (): Promise<boolean | undefined> => (await bus.info()).vbds[0]?.changedOutside;

  const future = await bench.image('future.img', 1 << 20);
  await bench.sh('touch -d "next year" "$1"', future);
  const { path: early } = await bus.attach({ driver: 'aio', image: future });
  await bench.sh(`${TICK}; printf x | dd of="$1" conv=notrunc,fsync status=none`, early);
  t.equal(await isChanged(), false, 'its time was in the future');
  await bench.sh(SCRIBBLE, future);
  // the time of a file is looked at once a second too, and an own write hides what was not seen before
  t.equal(await isChanged(), true, 'a write beside it');
  await bench.sh(`${TICK}; printf y | dd of="$1" conv=notrunc,fsync status=none`, early);
  t.equal(await isChanged(), true, 'which an own write does not hide');
  await bus.detach('xvda');

  const directory = await bench.makeDirectory('full');
  await bench.sh('mkfs.ext4 -q -F "$1"; mount -o loop "$1" "$2"', await bench.image('fs.ext4', 8 << 20), directory);
  const { path } = await bus.attach({ driver: 'aio', image: await bench.image('full/sparse.img', 32 << 20) });
  const { status } = await bench.try('dd if=/dev/urandom of="$1" bs=1M conv=notrunc,fsync status=none 2>&-', path);
  t.not(status, 0, 'there is no room for it');
  t.equal(await isChanged(), false, 'its own write failed');
  const { stderr } = await bench.fusetap(['detach', '--wait', '5', 'xvda']);
  t.notMatch(stderr, /changed by somebody else/);
});
