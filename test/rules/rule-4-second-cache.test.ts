/**
 * Rule 4: a loop device on a vbd is a second cache. Its I/O alone is coherent and durable, and the vbd has all of it
 * when the device is gone; fusetap refuses to detach under it (rule 9).
 */
import t, { type Test } from 'tap';
import { asked, attachFor, type Ground, prepareGround, refusalOf, WAYS, type Way, whyNotRules } from './fixture.js';

t.setTimeout(60_000);

const SIZE = 8 << 20;

void t.test('rule 4: a second cache', { skip: whyNotRules('losetup', 'mkfs.ext4', 'cmp', 'blockdev') }, async (t) => {
  const ground = await prepareGround(t);
  for (const way of WAYS) await t.test(way.label, (t) => useLoop(t, ground, way));
});

async function useLoop(t: Test, { bench, a }: Ground, way: Way): Promise<void> {
  const image = await bench.image(`${way.driver}-${way.passthrough}.img`, SIZE);
  const { path, vdev } = await attachFor(t, a, { ...asked(way), image });
  const loop = await bench.loop(path);
  await bench.sh('head -c 300000 /dev/urandom > data; dd if=data of="$1" bs=64k status=none', loop);
  t.match(await refusalOf(a.detach(vdev)), { code: 'BUSY', holders: [{ loop }] }, 'no detach under it');
  await bench.sh('sync "$1"; cmp -n 300000 "$1" data; cmp -n 300000 "$2" data', loop, path);
  t.pass('after a flush of the device the vbd has it');

  await bench.sh('printf "past the loop" | dd of="$1" conv=notrunc status=none', path);
  await bench.sh('blockdev --flushbufs "$1"', loop);
  t.equal(await bench.sh('head -c 13 "$1"', loop), 'past the loop', 'and it has what the vbd has, its cache emptied');

  await bench.sh('printf "unflushed" | dd of="$1" seek=8 conv=notrunc status=none; losetup -d "$1"', loop);
  await a.detach(vdev, '?wait=10');
  if (!way.writesImage) return;
  t.equal(
    await bench.sh('tail -c +4097 "$1" | head -c 9', image),
    'unflushed',
    'when it is gone nothing is left in it',
  );
}
