/** A block device as an image: a loop device over a file, in which all that was written must be in the end. */
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

t.test('a block device as an image', (t) => {
  onDefaultTransport(t, ['losetup', 'mkfs.ext4', 'e2fsck', 'cmp', 'dd'], async (t, transport) => {
    for (const driver of ['aio', 'ram', 'sync']) {
      await t.test(driver, async (t) => serveDevice(t, await openBench(t, transport), driver));
    }
    await t.test('modes', async (t) => refuseModes(t, await openBench(t, transport)));
  });
  t.end();
});

async function serveDevice(t: Test, bench: Bench, driver: string): Promise<void> {
  const sizeBytes = 16 << 20;
  const file = await bench.image('below.img', sizeBytes, sizeBytes);
  const device = await bench.loop(file);
  await bench.sh('cat "$1" > before.img', device);
  const vbd = await bench.attach(`${driver}:${device}`);
  t.match(await bench.list(), [{ image: device, size: sizeBytes, driver }]);
  t.equal(await bench.sh('stat -c %s "$1"', vbd), String(sizeBytes), 'the size of the device, not of its node');
  await bench.sh('cmp "$1" before.img', vbd);

  await bench.sh('mkfs.ext4 -q -F "$1"; sync "$1"; e2fsck -fn "$1"', vbd);
  // neither is a run of whole sectors
  await bench.sh('fallocate --punch-hole --offset 8388609 --length 70000 "$1"', vbd);
  await bench.sh('fallocate --zero-range --offset 9437185 --length 70000 "$1"', vbd);
  await bench.sh(
    'dd if="$1" bs=70000 skip=8388609 count=1 iflag=skip_bytes status=none | tr -d "\\0" | cmp - /dev/null',
    vbd,
  );
  t.match(
    (await bench.try('dd if=/dev/zero of="$1" bs=1M seek=16 count=1 conv=notrunc', vbd)).stderr,
    /No space|not permitted/,
    'EPERM: the seal, where the kernel writes by itself',
  );
  process.kill((await bench.list())[0]?.serverPid as number, 'SIGKILL');
  await bench.sh('cat "$1" > after.img', vbd);
  await bench.detach(vbd);
  t.same(await bench.traces(), []);

  await bench.sh('cmp "$1" "$2"', device, driver === 'ram' ? 'before.img' : 'after.img');
  await bench.sh('sync; losetup -d "$1"; cmp "$2" "$3"', device, file, driver === 'ram' ? 'before.img' : 'after.img');
}

async function refuseModes(t: Test, bench: Bench): Promise<void> {
  const file = await bench.image('below.img', 1 << 20);
  const device = await bench.loop(file, '--read-only');
  const { status, stderr } = await bench.fusetap(['attach', device]);
  t.equal(status, 5, stderr);
  t.match(stderr, /read-only device: attach it with mode r/);
  const vbd = await bench.attach('-r', device);
  t.equal((await bench.fusetap(['attach', `${file}`, 'xvdb', 'w'])).status, 4, 'the file below is in use');
  await bench.detach(vbd);
}
