/**
 * The emulated machine: Xen, its dom0, and the second serial line to the agent in there.
 *
 *      run.ts ──NAME──► QEMU's stdin  ──ttyS1──► dom0/agent
 *             ◄─lines── QEMU's stdout ◄─────────
 *                       console.log   ◄──com1─── Xen, the dom0's console
 */
import type { ChildProcess } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { within } from '../../../system/within.js';
import { parseReport, type Report } from './protocol.js';
import { begin, execute } from './steps.js';
import type { Agent } from './trial.js';

export interface MachineParts {
  /** the directory of the dom0's files */
  readonly image: string;
  readonly checkoutDisk: string;
  readonly scratch: string;
  readonly log: string;
}

/** An overlay of the dom0's disk, which takes what a run writes. @returns its path */
export async function makeOverlay({ image, scratch, log }: MachineParts): Promise<string> {
  const overlay = join(scratch, 'dom0.qcow2');
  await execute(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', join(image, 'dom0.img'), '-F', 'raw', overlay], log);
  return overlay;
}

export class Machine implements Agent {
  readonly #qemu: ChildProcess;
  readonly #reports: AsyncIterator<string>;
  readonly #ended: Promise<void>;

  constructor(parts: MachineParts, overlay: string) {
    this.#qemu = begin(['nice', '-n', '10', ...qemuWords(parts, overlay)], 'pipe', parts.scratch);
    const log = createWriteStream(parts.log, { flags: 'a' });
    this.#qemu.stderr?.pipe(log);
    this.#qemu.stdout?.pipe(log);
    // a machine that has ended takes no more orders; the end is seen by the reader
    this.#qemu.stdin?.on('error', () => {});
    this.#ended = new Promise((resolve) => this.#qemu.once('close', () => resolve()));
    if (this.#qemu.stdout === null) throw new TypeError('QEMU has no standard output');
    this.#reports = createInterface({ input: this.#qemu.stdout })[Symbol.asyncIterator]();
  }

  order(name: string): void {
    this.#qemu.stdin?.write(`${name}\n`);
  }

  async next(limitMs: number): Promise<Report | null> {
    const line = await within(this.#reports.next(), Math.max(limitMs, 0), null);
    return line === null || line.done === true ? null : parseReport(line.value);
  }

  async kill(): Promise<void> {
    this.#qemu.kill('SIGKILL');
    await this.#ended;
  }
}

/**
 * What takes the time is not what the emulated CPU does, but that QEMU translates each piece of code once for each address at
 * which it is executed. Without the random addresses of programs and libraries that is once, and not again in each process; and
 * the buffer of the translations (in MiB; at most 2047) must not get full, because then QEMU empties it.
 *
 * Without KVM, Xen and dom0 need a clock that goes with the instructions: else they find the time sources unstable, and
 * libxl's limits of some seconds pass while a CPU is emulated. `shift=0` is a machine of one instruction per nanosecond.
 */
function qemuWords({ image, checkoutDisk }: MachineParts, overlay: string): string[] {
  // the hypervisor is a multiboot kernel; its modules are the dom0's kernel, with its command line, and the initramfs
  const modules = `${join(image, 'vmlinux')} root=/dev/vda rw console=hvc0 quiet mitigations=off norandmaps,${join(image, 'initrd.img')}`;
  const xen = 'dom0_mem=2G,max:2G com1=115200,8n1 console=com1 noreboot bootscrub=0 spec-ctrl=no xpti=no pv-l1tf=no';
  return [
    ...['qemu-system-x86_64', '-display', 'none', '-nodefaults', '-no-reboot'],
    ...[
      '-accel',
      'tcg,tb-size=2047',
      '-icount',
      'shift=0,sleep=on',
      '-cpu',
      'Nehalem,monitor=off',
      '-smp',
      '1',
      '-m',
      '5G',
    ],
    ...['-kernel', join(image, 'xen'), '-append', xen, '-initrd', modules],
    ...['-drive', `file=${overlay},format=qcow2,if=virtio`],
    ...['-drive', `file=${checkoutDisk},format=raw,if=virtio,readonly=on`],
    ...['-chardev', 'file,id=console,path=console.log,append=on', '-serial', 'chardev:console'],
    ...['-chardev', 'stdio,id=agent,signal=off', '-serial', 'chardev:agent'],
  ];
}
