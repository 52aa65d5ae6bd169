/** A guest of QEMU: what it boots from, and how it is started. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync } from 'node:fs';
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { until } from '../../system/until.js';
import type { Bench } from './fixtures.js';

/** scripts/setup makes it: `vmlinuz`, and the modules that the kernel needs in the order of their names */
const KERNEL = join(import.meta.dirname, '../../../node_modules/.cache/guest-kernel');
/** the boot sector's program, which starts the partition that is marked active */
const BOOT_CODE = '/usr/lib/syslinux/mbr/mbr.bin';
export const GUEST_PROGRAMS = ['qemu-system-x86_64', 'syslinux', 'mcopy', 'busybox'];

const SECTOR_BYTES = 512;
const PARTITION_START = 1 << 20;
/** without KVM, and beside other tests */
const BOOT_LIMIT_MS = 60_000;

/** Why no guest can be started; false if one can. */
export function whyNoGuest(): string | false {
  if (!existsSync(join(KERNEL, 'vmlinuz'))) return `there is no kernel in ${KERNEL}: scripts/setup fetches it`;
  return existsSync(BOOT_CODE) ? false : `there is no ${BOOT_CODE}`;
}

/** An initrd with busybox and the modules. @param init the program of process 1 */
export async function makeInitrd(bench: Bench, init: string): Promise<void> {
  await bench.sh('mkdir -p root/bin root/modules; cp "$(command -v busybox)" root/bin/busybox');
  const modules = readdirSync(KERNEL).filter((name) => name.includes('.ko'));
  for (const module of modules) await bench.sh('cp "$1" root/modules', join(KERNEL, module));
  await writeFile(bench.path('root/init'), init, { mode: 0o755 });
  await bench.sh('cd root; find . | busybox cpio -o -H newc 2>/dev/null > ../initrd');
}

/** A partition table, a boot loader, and on its FAT what it loads: all written to the vbd. */
export async function makeBootable(bench: Bench, vbd: string): Promise<void> {
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
export async function powerOn(bench: Bench, ...vbds: string[]): Promise<string> {
  const { heard, args } = await machine(bench, vbds);
  const guest = bench.execute('qemu-system-x86_64', args, { timeoutMs: BOOT_LIMIT_MS });
  const { status, stderr } = await guest.catch(async (error: Error) => ({
    status: error.message,
    stderr: `console: ${await heard()}`,
  }));
  if (status !== 0) throw new Error(`qemu ended with ${status}: ${stderr}`);
  return heard();
}

/** Runs the guest until it has said something, then kills it. */
export async function killWhenSaid(bench: Bench, text: string, ...vbds: string[]): Promise<void> {
  const { heard, args } = await machine(bench, vbds);
  const guest = spawn('qemu-system-x86_64', args, { stdio: 'ignore' });
  const ended = once(guest, 'exit');
  try {
    const isSaid = async (): Promise<boolean> => guest.exitCode !== null || (await heard()).includes(text);
    if (await until(isSaid, { timeoutMs: BOOT_LIMIT_MS, everyMs: 50 })) return;
    throw new Error(`the guest did not say ${text}: ${await heard()}`);
  } finally {
    guest.kill('SIGKILL');
    await ended;
  }
}

async function machine(bench: Bench, vbds: readonly string[]): Promise<{ heard(): Promise<string>; args: string[] }> {
  // one past the cache of the host and one through it
  const caches = ['none', 'writeback'];
  const drives = vbds.flatMap((vbd, i) => ['-drive', `file=${vbd},format=raw,if=virtio,cache=${caches[i % 2]}`]);
  const log = bench.path('console');
  await writeFile(log, '');
  const machine = ['-accel', 'tcg', '-m', '256', '-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'];
  return {
    heard: () => readFile(log, 'latin1').catch(() => ''),
    args: [...machine, '-serial', `file:${log}`, ...drives],
  };
}

export const readFat = (bench: Bench, disk: string, name: string): Promise<string> =>
  bench.sh('mtype -i "$1" "::$2"', `${disk}@@${PARTITION_START}`, name);
