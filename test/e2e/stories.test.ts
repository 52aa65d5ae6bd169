/**
 * The stories that fusetap is for, told with the programs that users have: a file system made on a vbd, a loop device
 * on top of it, and what of it is in the image afterwards.
 */
import t, { type Test } from 'tap';
import { type Bench, forEachDriver, forEachTransport, OTHERS, type TestDriver } from './fixtures.js';

t.setTimeout(360_000);

/** sync waits for the host's disk with each of the thousands of writes of mkfs */
const sizeFor = (driver: string): number => (driver === 'sync' ? 8 : 256) << 20;

t.test('a file system made on a vbd', (t) => {
  forEachTransport(
    t,
    ['mkfs.ext3', 'dumpe2fs'],
    (t, transport) => forEachDriver(t, transport, remakeFileSystem),
    OTHERS,
  );
  t.end();
});

t.test('a loop device on a vbd', (t) => {
  forEachTransport(t, ['mkfs.ext3', 'e2fsck', 'losetup', 'tar'], (t, transport) =>
    forEachDriver(t, transport, useLoopDevice),
  );
  t.end();
});

async function uuidOf(bench: Bench, path: string): Promise<string> {
  const header = await bench.sh('dumpe2fs -h "$1" 2>/dev/null', path);
  const uuid = /^Filesystem UUID:\s+([0-9a-f-]{36})$/m.exec(header)?.[1];
  if (uuid === undefined) throw new Error(`no UUID in what dumpe2fs says of ${path}:\n${header}`);
  return uuid;
}

async function remakeFileSystem(t: Test, bench: Bench, { name: driver, writesImage }: TestDriver): Promise<void> {
  const image = await bench.image('golden.img', sizeFor(driver));
  await bench.sh('mkfs.ext3 -q -F "$1"', image);
  const before = await uuidOf(bench, image);

  const vbd = await bench.attach(`tap:${driver}:${image},xvdb,w`);
  t.equal(vbd, `${bench.runtimeDir}/bus/0/xvdb`, 'attach prints the path');
  t.equal(await uuidOf(bench, vbd), before, 'the vbd shows the file system of the image');

  await bench.sh('mkfs.ext3 -q -F "$1"', vbd);
  const after = await uuidOf(bench, vbd);
  t.not(after, before, 'a new file system is on the vbd');
  t.equal(await uuidOf(bench, image), writesImage ? after : before, 'and in the image only where writes go there');

  await bench.detach('xvdb');
  t.same(await bench.traces(), [], 'nothing is left of the bus');
  const kept = writesImage ? after : before;
  t.equal(await uuidOf(bench, image), kept);
  const again = await bench.attach(`tap:${driver}:${image},xvdb,w`);
  t.equal(await uuidOf(bench, again), kept, 'attached again');
  await bench.sh('e2fsck -fn "$1"', again);
  await bench.detach('xvdb');
}

async function useLoopDevice(t: Test, bench: Bench, { name: driver, writesImage }: TestDriver): Promise<void> {
  const image = await bench.image('disk.img', 32 << 20);
  await bench.sh('mkfs.ext3 -q -F "$1"', image);
  await makeTree(bench);
  const directory = await bench.makeDirectory('mnt');
  const vbd = await bench.attach(`${driver}:${image}`);
  const device = await bench.loop(vbd);
  await bench.sh('mount "$1" "$2"; tar -xf tree.tar -C "$2"', device, directory);

  await refuseDetach(t, bench, device, directory);

  await bench.sh('diff -r --no-dereference tree "$1/tree"', directory);
  await bench.sh('umount "$1"; losetup -d "$2"', directory, device);
  await bench.sh('e2fsck -fn "$1"', vbd);
  // the kernel lets go of a loop device's file a moment after losetup -d has returned
  await bench.detach('--wait', '10', vbd);
  t.same(await bench.traces(), []);

  if (!writesImage) return;
  await bench.sh('mount -o loop,ro "$1" mnt; diff -r --no-dereference tree mnt/tree; umount mnt', image);
}

async function makeTree(bench: Bench): Promise<void> {
  await bench.sh(`
    mkdir -p tree/a/b/c tree/empty
    for i in $(seq 50); do echo "file $i" > tree/a/$i; done
    head -c 3000001 /dev/urandom > tree/a/b/large
    ln -s ../1 tree/a/b/link; ln tree/a/2 tree/a/b/c/hard
    truncate -s 1M tree/a/sparse
    tar -cf tree.tar tree
  `);
}

async function refuseDetach(t: Test, bench: Bench, device: string, directory: string): Promise<void> {
  const refused = await bench.fusetap(['detach', 'xvda', '--json']);
  t.equal(refused.status, 4, 'detach is refused');
  t.equal(refused.stderr.split('\n').length, 2, 'in one line');
  t.ok(refused.stderr.includes(device), 'which names the loop device');
  t.ok(refused.stderr.includes(directory), 'and where that is mounted');
  t.match(JSON.parse(refused.stdout), { error: { code: 'BUSY', holders: [{ loop: device, mount: directory }] } });
  const [vbd] = await bench.list();
  t.equal(vbd?.state, 'running', 'the vbd stays');
}
