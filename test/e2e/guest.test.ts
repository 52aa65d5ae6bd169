/**
 * A guest of QEMU that boots from a vbd: its BIOS reads the boot sector, the boot loader reads kernel and initrd, the
 * kernel mounts file systems on two vbds, reads from them and writes to them, and powers off. Nothing but the vbds has
 * what it boots.
 *
 *      xvda (aio): MBR ─► syslinux ─► vmlinuz, initrd on FAT      xvdb (ram): ext4
 */
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';
import { GUEST_PROGRAMS, makeBootable, makeInitrd, powerOn, readFat, whyNoGuest } from './guest.js';

t.setTimeout(180_000);

const PROGRAMS = [...GUEST_PROGRAMS, 'mkfs.ext4', 'debugfs', 'e2fsck'];

/** Process 1 of the guest: each step says its name first, so that the console tells which one failed. */
const INIT = `#!/bin/busybox sh
set -e
trap 'echo "guest: failed after the step above"; busybox poweroff -f' EXIT
busybox mkdir -p /dev /proc /mnt/a /mnt/b
busybox mount -t devtmpfs none /dev
busybox mount -t proc none /proc
echo 'guest: modules'
for module in /modules/*; do busybox insmod $module; done
echo 'guest: vda'
busybox mount -t vfat /dev/vda1 /mnt/a
busybox cat /mnt/a/question
echo 'an answer on FAT' > /mnt/a/answer
echo 'guest: vdb'
busybox mount -t ext4 /dev/vdb /mnt/b
busybox cat /mnt/b/question
echo 'an answer on ext4' > /mnt/b/answer
busybox seq 100000 > /mnt/b/numbers
busybox sync
echo 'guest: raw'
# between the boot sector and the partition
echo 'an answer on no file system' | busybox dd of=/dev/vda bs=512 seek=100 conv=sync,fsync 2>/dev/null
busybox umount /mnt/a /mnt/b
trap - EXIT
echo 'guest: done'
busybox poweroff -f
`;

t.test('a guest boots from a vbd', { skip: whyNoGuest() }, (t) => {
  onDefaultTransport(t, PROGRAMS, async (t, transport) => bootGuest(t, await openBench(t, transport)));
  t.end();
});

async function bootGuest(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('boot.img', 40 << 20);
  const golden = await bench.image('data.img', 16 << 20);
  await bench.begin();
  const boot = await bench.attach(image);
  const data = await bench.attach(`ram:${golden}`, 'xvdb');
  await makeInitrd(bench, INIT);
  await makeBootable(bench, boot);
  await bench.sh('mkdir tree; echo "a question on ext4" > tree/question; mkfs.ext4 -q -F -d tree "$1"', data);

  const console_ = await powerOn(bench, boot, data);
  for (const said of ['a question on FAT', 'a question on ext4', 'guest: done'])
    t.ok(console_.includes(said), said, { console: console_ });

  t.equal(await readMarker(bench, boot), 'an answer on no file system');
  t.equal(await readFat(bench, boot, 'answer'), 'an answer on FAT');
  await bench.sh('e2fsck -fn "$1" >&2', data);
  t.equal(await bench.sh('debugfs -R "cat answer" "$1" 2>/dev/null', data), 'an answer on ext4');
  await bench.sh('debugfs -R "cat numbers" "$1" 2>/dev/null | tail -n 1 | grep -qx 100000', data);

  await bench.detach('--all');
  t.equal(await readMarker(bench, image), 'an answer on no file system', 'and in the image');
  t.equal(await readFat(bench, image, 'answer'), 'an answer on FAT', 'and in the image');
  t.equal(await bench.sh('tr -d "\\0" < "$1" | wc -c', golden), '0', 'what ram is copied from is as it was');
}

const readMarker = (bench: Bench, disk: string): Promise<string> =>
  bench.sh('dd if="$1" bs=512 skip=100 count=1 status=none | tr -d "\\0"', disk);
