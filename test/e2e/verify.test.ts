/**
 * What is written is what is read, to the byte: under load and checksums, at odd sizes, far out in sparse images, and
 * in the image afterwards.
 */
import t, { type Test } from 'tap';
import {
  ALL_WAYS,
  type Bench,
  DRIVERS,
  forEachDriver,
  forEachTransport,
  OTHERS,
  openBench,
  type TestDriver,
  type TestTransport,
} from './fixtures.js';

t.setTimeout(360_000);

const FIO = ['fio', 'qemu-img', 'cmp'];

t.test('fio verifies what it wrote', (t) => {
  const verify = async (t: Test, transport: TestTransport): Promise<void> => {
    const engines = await findEngines(await openBench(t, transport));
    // who runs it makes no difference to an engine
    const wanted = transport.runner === undefined ? engines : engines.slice(-1);
    // all ways where they differ, and sync on each transport
    const all = transport.abilities.passthrough ? ALL_WAYS : [...DRIVERS];
    const ways = transport.runner === undefined ? all : undefined;
    await forEachDriver(t, transport, (t, bench, driver) => verifyUnderLoad(t, bench, driver, wanted), ways);
  };
  forEachTransport(t, FIO, verify, OTHERS);
  t.end();
});

t.test('sizes that are no multiple of anything', (t) => {
  forEachTransport(t, ['cmp', 'dd'], (t, transport) =>
    forEachDriver(t, transport, async (t, bench, driver) => {
      await bench.begin();
      for (const sizeBytes of [1, 1300, (4096 << 10) + 1]) {
        await t.test(`${sizeBytes} bytes`, (t) => serveOddSize(t, bench, driver, sizeBytes));
      }
    }),
  );
  t.end();
});

t.test('a sparse image of 3 TiB', (t) => {
  forEachTransport(t, ['fio', 'dd', 'cmp'], (t, transport) => forEachDriver(t, transport, reachFarOffsets));
  t.end();
});

/** An engine of fio, with the reason where this kernel forbids it. */
interface Engine {
  name: string;
  skip: string | false;
}

async function findEngines(bench: Bench): Promise<Engine[]> {
  const engines = ['io_uring', 'libaio'].map(async (name): Promise<Engine> => {
    const job = ['--name=probe', `--filename=probe-${name}`, '--rw=write', '--size=4k', `--ioengine=${name}`];
    const { status, stderr, stdout } = await bench.execute('fio', job);
    const reason = `${stderr}${stdout}`.trim().split('\n')[0];
    return { name, skip: status === 0 ? false : `fio cannot use ${name} here: ${reason}` };
  });
  return Promise.all(engines);
}

const JOB = [
  '--rw=randwrite',
  '--verify=crc32c',
  '--verify_fatal=1',
  '--do_verify=1',
  '--iodepth=32',
  // most requests small, most bytes in large ones; blocks that start anywhere
  '--bssplit=4k/50:12k/15:64k/15:256k/10:1m/10',
  '--blockalign=4k',
  '--end_fsync=1',
  '--output-format=terse',
];

async function verifyUnderLoad(t: Test, bench: Bench, { name, options, writesImage }: TestDriver, engines: Engine[]) {
  const sizeBytes = 24 << 20;
  const image = await bench.image('disk.img', sizeBytes, 4 << 20);
  const before = bench.path('before.img');
  await bench.sh('cp "$1" "$2"', image, before);
  const vbd = await bench.attach(...options, `${name}:${image}`);
  await bench.sh('qemu-img compare -f raw -F raw "$1" "$2"', vbd, before);

  for (const { name: engine, skip } of engines) {
    for (const direct of [1, 0]) {
      await t.test(`${engine}, ${direct ? 'direct' : 'buffered'}`, { skip }, async (t) => {
        const job = [`--name=${engine}-${direct}`, `--filename=${vbd}`, `--ioengine=${engine}`, `--direct=${direct}`];
        const seed = `--randseed=${Date.now() % 1_000_000}`;
        t.comment(seed);
        const { status, stdout, stderr } = await bench.execute('fio', [...job, ...JOB, seed, `--size=${sizeBytes}`]);
        t.equal(status, 0, `${stderr}${stdout}`);
      });
    }
  }

  await bench.sh('cat "$1" > after.img', vbd);
  t.equal((await bench.try('cmp -s after.img before.img')).status, 1, 'something was written');
  await bench.sh('qemu-img compare -f raw -F raw "$1" after.img', vbd);
  await bench.detach(vbd);
  await bench.sh('cmp "$1" "$2"', image, writesImage ? bench.path('after.img') : before);
}

async function serveOddSize(t: Test, bench: Bench, { name, options, writesImage }: TestDriver, sizeBytes: number) {
  const image = await bench.image(`odd-${sizeBytes}.img`, sizeBytes, sizeBytes);
  await bench.sh('cp "$1" before.img; cp "$1" after.img', image);
  const vbd = await bench.attach(...options, `${name}:${image}`);

  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(sizeBytes));
  await bench.sh('cat "$1" | cmp - before.img', vbd);
  await bench.sh('cmp "$1" before.img', vbd);
  await bench.sh('dd if="$1" bs=1M status=none | cmp - before.img', vbd);
  await bench.sh('dd if="$1" bs=777 skip=1 iflag=skip_bytes,direct status=none > part', vbd);
  await bench.sh('tail -c +2 before.img | cmp - part');

  // the last byte, and one somewhere before it
  for (const at of new Set([sizeBytes - 1, Math.floor(sizeBytes / 3)])) {
    for (const file of [vbd, bench.path('after.img')]) {
      await bench.sh('printf Z | dd of="$1" bs=1 seek="$2" conv=notrunc status=none', file, String(at));
    }
  }
  await bench.sh('cmp "$1" after.img', vbd);
  await bench.detach(vbd);
  await bench.sh('cmp "$1" "$2"', image, writesImage ? 'after.img' : 'before.img');
}

async function reachFarOffsets(t: Test, bench: Bench, { name, options, writesImage }: TestDriver): Promise<void> {
  const sizeBytes = 3 * 2 ** 40 + 12_345;
  const image = await bench.image('far.img', sizeBytes, 1000);
  const vbd = await bench.attach(...options, `${name}:${image}`);
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(sizeBytes));

  // on both sides of where 32 bits of bytes and 32 bits of sectors end, and at the end
  const offsets = [2 ** 31, 2 ** 32, 2 ** 41].flatMap((edge) => [edge - 3000, edge + 5001]).concat(sizeBytes - 4001);
  for (const at of offsets) {
    await bench.sh('head -c 4001 /dev/urandom > "at-$1"', String(at));
    await bench.sh('dd if="at-$2" of="$1" bs=1M seek="$2" oflag=seek_bytes conv=notrunc status=none', vbd, String(at));
  }
  const equals = 'dd if="$1" bs=4001 count=1 skip="$2" iflag=skip_bytes status=none | cmp - "at-$2"';
  for (const at of offsets) await bench.sh(equals, vbd, String(at));
  const verify = ['--rw=randwrite', '--verify=crc32c', '--verify_fatal=1', '--bs=4k', '--ioengine=psync'];
  const where = [`--filename=${vbd}`, `--offset=${2 ** 41 + 2 ** 33}`, '--size=2m', '--name=far'];
  const { status, stdout, stderr } = await bench.execute('fio', [...where, ...verify]);
  t.equal(status, 0, `${stderr}${stdout}`);

  await bench.detach(vbd);
  if (writesImage) for (const at of offsets) await bench.sh(equals, image, String(at));
  const blocks = Number(await bench.sh('stat -c %b "$1"', image));
  t.ok(blocks * 512 < 16 << 20, 'the image stays sparse');
}
