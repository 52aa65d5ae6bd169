/** QEMU's tools, as the judges of what other programs write and read. */
import { execFileSync } from 'node:child_process';
import { open, rm } from 'node:fs/promises';
import type { Disk } from '../../drivers/disk.js';
import { isInstalled } from '../e2e/command.js';

/** Why the judges cannot be asked; false if they can. */
export function whyNoQemu(): string | false {
  const missing = ['qemu-img', 'qemu-io'].filter((program) => !isInstalled(program));
  return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`;
}

export function qemuImg(...words: string[]): string {
  return execFileSync('qemu-img', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Runs a command of qemu-io. It prints errors and ends with 0, so its text is checked. */
export function qemuIo(format: string, image: string, command: string): void {
  const text = execFileSync('qemu-io', ['-f', format, '-c', command, image], { encoding: 'utf8' });
  if (/fail|error|Pattern verification/i.test(text)) throw new Error(`qemu-io ${command}: ${text}`);
}

/** The size of the disk in an image. */
export function qemuSize(format: string, image: string): number {
  const info = JSON.parse(qemuImg('info', '-f', format, '--output', 'json', image)) as { 'virtual-size': number };
  return info['virtual-size'];
}

/** Fails if an image, read by QEMU, has other bytes than a disk, read by us. */
export async function compareWithQemu(format: string, image: string, disk: Disk): Promise<void> {
  const raw = `${image}.raw`;
  qemuImg('convert', '-f', format, '-O', 'raw', image, raw);
  const file = await open(raw, 'r');
  const { size } = await file.stat();
  if (size !== disk.size) throw new Error(`QEMU says ${size} bytes, not ${disk.size}`);
  const [theirs, ours] = [Buffer.alloc(1 << 20), Buffer.alloc(1 << 20)];
  for (let at = 0; at < size; at += theirs.length) {
    const length = Math.min(theirs.length, size - at);
    await file.read(theirs, 0, length, at);
    await disk.read(ours.subarray(0, length), at);
    if (theirs.compare(ours, 0, length, 0, length) !== 0) throw new Error(`QEMU reads other bytes near byte ${at}`);
  }
  await file.close();
  await rm(raw);
}
