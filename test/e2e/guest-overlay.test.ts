/**
 * A guest that boots from a qcow2 overlay and is killed while it writes: what it had synced is there when it boots again,
 * QEMU's checker finds nothing, and the base is as it was.
 */
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { GUEST_PROGRAMS, killWhenSaid, makeBootable, makeInitrd, powerOn, whyNoGuest } from './guest.js';

t.setTimeout(240_000);

/** The first time it writes until it is killed; the second time it reads what the first one wrote. */
const INIT = `#!/bin/busybox sh
set -e
trap 'echo "guest: failed"; busybox poweroff -f' EXIT
busybox mkdir -p /dev /mnt/a
busybox mount -t devtmpfs none /dev
for module in /modules/*; do busybox insmod $module; done
busybox mount -t vfat /dev/vda1 /mnt/a
if [ -e /mnt/a/first ]; then
  echo "guest: found $(busybox cat /mnt/a/first)"
  busybox seq 50000 > /mnt/a/more
  busybox umount /mnt/a
  trap - EXIT
  echo 'guest: done'
  busybox poweroff -f
fi
echo 'what was synced' > /mnt/a/first
busybox sync
# never written before: between the boot sector and the partition
echo 'raw bytes' | busybox dd of=/dev/vda bs=512 seek=100 conv=sync,fsync 2>/dev/null
echo 'guest: synced'
while true; do busybox seq 100000 > /mnt/a/numbers; done
`;

t.test('a guest boots from an overlay, is killed, and boots again', { skip: whyNoGuest() }, (t) => {
  onDefaultTransport(t, [...GUEST_PROGRAMS, 'qemu-img'], async (t, transport) =>
    bootTwice(t, await openBench(t, transport)),
  );
  t.end();
});

async function bootTwice(t: Test, bench: Bench): Promise<void> {
  const base = await bench.image('boot.img', 40 << 20);
  await bench.begin();
  await makeInitrd(bench, INIT);
  await makeBootable(bench, await bench.attach(base));
  await bench.detach('--all');
  const digest = async (): Promise<string> =>
    createHash('sha256')
      .update(await readFile(base))
      .digest('hex');
  const before = await digest();

  const overlay = bench.path('overlay.qcow2');
  await bench.sh('qemu-img create -q -f qcow2 -F raw -b boot.img "$1"', overlay);
  const vbd = await bench.attach(`qcow2:${overlay}`);
  await killWhenSaid(bench, 'guest: synced', vbd);
  const said = await powerOn(bench, vbd);
  t.match(said, /guest: found what was synced/);
  t.match(said, /guest: done/);
  t.equal(await bench.sh('dd if="$1" bs=512 skip=100 count=1 status=none | tr -d "\\0"', vbd), 'raw bytes');
  await bench.detach('--all');
  t.match(await bench.sh('qemu-img check "$1"', overlay), /No errors were found/);
  t.equal(await digest(), before, 'the base is as it was');
}
