/**
 * A guest of QEMU that boots from a vbd: its BIOS reads the boot sector, the boot loader reads kernel and initrd, the
 * kernel mounts file systems on two vbds, reads from them and writes to them, and powers off. Nothing but the vbds has
 * what it boots.
 *
 *      xvda (aio): MBR ─► syslinux ─► vmlinuz, initrd on FAT      xvdb (ram): ext4
 */
import { existsSync, readdirSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { type Bench, onDefaultTransport, openBench } from './fixtures.js';

t.setTimeout(180_000);

/** scripts/setup makes it: `vmlinuz`, and the modules that the kernel needs in the order of their names */
const KERNEL = join(import.meta.dirname, '../../../node_modules/.cache/guest-kernel');
/** the boot sector's program, which starts the partition that is marked active */
const BOOT_CODE = '/usr/lib/syslinux/mbr/mbr.bin';
const PROGRAMS = ['qemu-system-x86_64', 'syslinux', 'mcopy', 'busybox', 'mkfs.ext4', 'debugfs', 'e2fsck'];

const SECTOR_BYTES = 512;
const PARTITION_START = 1 << 20;
/** without KVM, and beside other tests */
const BOOT_LIMIT_MS = 60_000;

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

function whyNoKernel(): string | false {
  if (!existsSync(join(KERNEL, 'vmlinuz'))) return `there is no kernel in ${KERNEL}: scripts/setup fetches it`;
  return existsSync(BOOT_CODE) ? false : `there is no ${BOOT_CODE}`;
}

t.test('a guest boots from a vbd', { skip: whyNoKernel() }, (t) => {
  onDefaultTransport(t, PROGRAMS, async (t, transport) => bootGuest(t, await openBench(t, transport)));
  t.end();
});

async function bootGuest(t: Test, bench: Bench): Promise<void> {
  const image = await bench.image('boot.img', 40 << 20);
  const golden = await bench.image('data.img', 16 << 20);
  await bench.begin();
  const boot = await bench.attach(image);
  const data = await bench.attach(`ram:${golden}`, 'xvdb');
  await makeInitrd(bench);
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

/** An initrd with busybox, the modules and INIT. */
async function makeInitrd(bench: Bench): Promise<void> {
  await bench.sh('mkdir -p root/bin root/modules; cp "$(command -v busybox)" root/bin/busybox');
  const modules = readdirSync(KERNEL).filter((name) => name.includes('.ko'));
  for (const module of modules) await bench.sh('cp "$1" root/modules', join(KERNEL, module));
  await writeFile(bench.path('root/init'), INIT, { mode: 0o755 });
  await bench.sh('cd root; find . | busybox cpio -o -H newc 2>/dev/null > ../initrd');
}

/** A partition table, a boot loader, and on its FAT what it loads: all written to the vbd. */
async function makeBootable(bench: Bench, vbd: string): Promise<void> {
  await writeFile(
    bench.path('syslinux.cfg'),
    [
      'SERIAL 0 115200',
      'DEFAULT l',
      'LABEL l',
      'KERNEL vmlinuz',
      'INITRD initrd',
      'APPEND console=ttyS0 panic=-1 quiet',
    ].join('\n'),
  );
  await writeFile(bench.path('table'), partitionTable((await stat(bench.path('boot.img'))).size - PARTITION_START));
  await bench.sh(
    `
    dd if=${BOOT_CODE} of="$1" conv=notrunc status=none
    dd of="$1" bs=1 seek=446 conv=notrunc status=none < table
    fat="$1@@${PARTITION_START}"
    mformat -i "$fat" -T $(( ($(stat -c %s "$1") - ${PARTITION_START}) / ${SECTOR_BYTES} )) -h 16 -s 63 -H ${PARTITION_START / SECTOR_BYTES} ::
    echo 'a question on FAT' > question
    mcopy -i "$fat" "$2/vmlinuz" initrd syslinux.cfg question ::
    syslinux --install --offset ${PARTITION_START} "$1"
    `,
    vbd,
    KERNEL,
  );
}

/**
 * The end of an MBR: one active partition of FAT, the rest of the disk. Not by sfdisk, which ends with sync(2) and so
 * waits for every disk of the machine.
 */
function partitionTable(sizeBytes: number): Buffer {
  const table = Buffer.alloc(66);
  table.writeUInt8(0x80, 0);
  table.writeUInt8(0x0c, 4);
  table.writeUInt32LE(PARTITION_START / SECTOR_BYTES, 8);
  table.writeUInt32LE(sizeBytes / SECTOR_BYTES, 12);
  table.writeUInt16LE(0xaa55, 64);
  return table;
}

/** Runs the guest until it powers off. @returns what it said on its serial console */
async function powerOn(bench: Bench, ...vbds: string[]): Promise<string> {
  // one past the cache of the host and one through it
  const caches = ['none', 'writeback'];
  const drives = vbds.flatMap((vbd, i) => ['-drive', `file=${vbd},format=raw,if=virtio,cache=${caches[i % 2]}`]);
  const machine = ['-accel', 'tcg', '-m', '256', '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'];
  const log = bench.path('console');
  const heard = (): Promise<string> => readFile(log, 'latin1').catch(() => '');
  const guest = bench.execute('qemu-system-x86_64', [...machine, '-serial', `file:${log}`, ...drives], {
    timeoutMs: BOOT_LIMIT_MS,
  });
  const { status, stderr } = await guest.catch(async (error: Error) => ({
    status: error.message,
    stderr: `console: ${await heard()}`,
  }));
  if (status !== 0) throw new Error(`qemu ended with ${status}: ${stderr}`);
  return heard();
}

const readMarker = (bench: Bench, disk: string): Promise<string> =>
  bench.sh('dd if="$1" bs=512 skip=100 count=1 status=none | tr -d "\\0"', disk);

const readFat = (bench: Bench, disk: string, name: string): Promise<string> =>
  bench.sh('mtype -i "$1" "::$2"', `${disk}@@${PARTITION_START}`, name);
