/** Filters from the command line: offset and sizelimit served by threads, the others on the event loop of the server. */
import t, { type Test } from 'tap';
import { eventually } from './command.js';
import {
  type Bench,
  JUST_NAMESPACE,
  JUST_USER,
  OTHERS,
  onDefaultTransport,
  openBench,
  shareOut,
  type TestTransport,
} from './fixtures.js';
import { busInfo, killServer, killServerDuring, verifyJob } from './kill-server.js';

t.setTimeout(360_000);

t.test('a run of an image as a disk', (t) => {
  const serve = async (t: Test, transport: TestTransport): Promise<void> => {
    for (const driver of shareOut(transport, ['aio', 'ram', 'sync'])) {
      await t.test(driver, async (t) => serveRun(t, await openBench(t, transport), driver));
    }
  };
  onDefaultTransport(t, ['mkfs.ext4', 'e2fsck', 'cmp'], serve, OTHERS);
  t.end();
});

t.test('a run that the image does not have is refused, and nothing is left', (t) => {
  onDefaultTransport(t, [], async (t, transport) => {
    const bench = await openBench(t, transport);
    const image = await bench.image('disk.img', 10_000);
    const cases: [string[], RegExp][] = [
      [['--offset', '10000'], /offset 10000: the disk has only 10000 bytes: /],
      [['--offset', '1G'], /offset 1073741824: the disk has only 10000 bytes/],
      [['--sizelimit', '10001'], /sizelimit 10001: the disk has only 10000 bytes/],
      [['--offset', '4K', '--sizelimit', '5905'], /sizelimit 5905: the disk has only 5904 bytes/],
      [['--offset', 'far'], /offset: 'far' is not a size/],
      [['--filter', 'delay=soon'], /delay 'soon'/],
      [['--filter', 'nosuch'], /no such filter: 'nosuch': filters are delay, error/],
      [['--filter', '=5'], /--filter =5 has no name/],
      [['--filter', 'error=read'], /would refuse the attach itself/],
    ];
    for (const [index, [options, message]] of cases.entries()) {
      for (const driver of index === 0 ? ['aio', 'ram'] : ['aio']) {
        const { status, stderr } = await bench.fusetap(['attach', `${driver}:${image}`, ...options]);
        t.equal(status, 2, `${driver} ${options.join(' ')}: ${stderr}`);
        t.match(stderr, message);
      }
    }
    t.same(await bench.traces(), []);
  });
  t.end();
});

t.test('a disk on the event loop, under load and checksums, its server killed', (t) => {
  const verify = async (t: Test, transport: TestTransport): Promise<void> => {
    for (const driver of shareOut(transport, ['aio', 'ram'])) {
      await t.test(driver, async (t) => verifyWhileKilled(t, await openBench(t, transport), driver));
    }
  };
  onDefaultTransport(t, ['fio'], verify, JUST_USER);
  t.end();
});

t.test('errors on demand', (t) => {
  onDefaultTransport(t, ['dd'], async (t, transport) => injectErrors(t, await openBench(t, transport)), JUST_USER);
  t.end();
});

t.test('read-only, whatever the mode', (t) => {
  const refuseWrites = async (t: Test, transport: TestTransport): Promise<void> => {
    const bench = await openBench(t, transport);
    const image = await bench.image('disk.img', 1 << 20, 1 << 20);
    for (const driver of shareOut(transport, ['aio', 'ram'])) {
      const vbd = await bench.attach('--filter', 'read-only', `${driver}:${image}`);
      const { status, stderr } = await bench.try('dd if=/dev/zero of="$1" bs=4k count=1 conv=notrunc', vbd);
      t.equal(status, 1);
      t.match(stderr, /Read-only file system|Permission denied/);
      await bench.sh('cmp "$1" "$2"', vbd, image);
      t.match(await bench.succeed(['show', 'xvda']), /^filters +read-only$/m);
      await bench.detach(vbd);
    }
  };
  onDefaultTransport(t, ['dd', 'cmp'], refuseWrites, JUST_NAMESPACE);
  t.end();
});

async function serveRun(t: Test, bench: Bench, driver: string): Promise<void> {
  const [start, size, total] = [(1 << 20) + 512, 16 << 20, 20 << 20];
  const image = await bench.image('disk.img', total, 20 << 20);
  await bench.sh('cp disk.img before.img');
  const vbd = await bench.attach('--offset', String(start), '--sizelimit', '16M', `${driver}:${image}`);
  t.match(await bench.list(), [{ size, filters: [`offset=${start}`, 'sizelimit=16M'] }]);
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(size));
  const inside = `dd if="$1" bs=64K iflag=skip_bytes,count_bytes skip=${start} count=${size} status=none`;
  await bench.sh(`${inside} | cmp - "$2"`, image, vbd);

  await bench.sh('mkfs.ext4 -q -F "$1"; e2fsck -fn "$1"', vbd);
  const beyond = await bench.try('dd if=/dev/zero of="$1" bs=1M seek=16 count=1 conv=notrunc', vbd);
  t.match(beyond.stderr, /No space left on device/);
  // another server has to make the same run of it
  const pid = await killServer(bench);
  await bench.sh('e2fsck -fn "$1"; cat "$1" > after.img', vbd);
  t.not((await busInfo(bench)).serverPid, pid);
  await bench.detach(vbd);

  if (driver === 'ram') return bench.sh('cmp disk.img before.img').then(() => {});
  await bench.sh(`${inside} | cmp - after.img`, image);
  await bench.sh(`cmp -n ${start} disk.img before.img; cmp -i ${start + size} disk.img before.img`);
}

async function verifyWhileKilled(t: Test, bench: Bench, driver: string): Promise<void> {
  const isRoot = bench.transport.runner === undefined;
  const sizeBytes = (isRoot ? 24 : 16) << 20;
  const image = await bench.image('disk.img', sizeBytes);
  const vbd = await bench.attach('--filter', 'delay=12', `${driver}:${image}`);
  const job = bench.execute('fio', verifyJob(vbd, sizeBytes), { timeoutMs: 60_000 });
  const { status, stdout, stderr, killed } = await killServerDuring(bench, isRoot ? 6 : 2, job);
  t.equal(status, 0, `${stderr}${stdout}`);
  t.ok(killed >= (isRoot ? 3 : 1), `${killed} servers were killed`);
  // the last kill may come as the program ends
  await eventually('the last server', 20_000, async () => (await busInfo(bench)).restarts === killed);
  t.match(await bench.list(), [{ restarts: killed, filters: ['delay=12'] }]);
  await bench.sh('cat "$1" > after.img', vbd);
  await bench.detach(vbd);
  if (driver === 'aio') await bench.sh('cmp "$1" after.img', image);
}

async function injectErrors(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('disk.img', 1 << 20, 1 << 20);
  const vbd = await bench.attach(
    ...['--filter', 'error=write:64K-128K', '--filter', 'error=read@broken', '--filter', 'error=flush@unflushable'],
    image,
  );
  const write = 'dd if=/dev/zero of="$1" bs=4k seek="$2" count=1 conv=notrunc';
  await bench.sh(write, vbd, '15');
  t.match((await bench.try(write, vbd, '16')).stderr, /Input\/output error/);
  await bench.sh(write, vbd, '32');

  const read = 'dd if="$1" of=/dev/null bs=4k iflag=direct';
  await bench.sh(read, vbd);
  await bench.sh('touch broken');
  t.match((await bench.try(read, vbd)).stderr, /Input\/output error/);
  await killServer(bench);
  t.match((await bench.try(read, vbd)).stderr, /Input\/output error/, 'the next server has the filter too');
  await bench.sh('rm broken');
  await bench.sh(read, vbd);

  await bench.sh('touch unflushable');
  t.match((await bench.try(`${write},fsync`, vbd, '0')).stderr, /Input\/output error/);
  const { status, stderr } = await bench.fusetap(['detach', vbd]);
  t.equal(status, 1, 'detach says that data may be lost');
  t.match(stderr, /flush/);
  t.same(await bench.traces(), []);
}
