/**
 * A file system mounted as root does it: by a loop device on the file. The device goes by itself with the mount.
 */
import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { isDeviceReadOnly, isInUserNamespace } from '../../system/proc.js';
import { runTool, type TellRemark, type TellWait } from './run-tool.js';

/** Whether this process may make loop devices and mount them. */
export function canMountByLoop(): boolean {
  if (process.geteuid?.() !== 0 || isInUserNamespace()) return false;
  try {
    accessSync('/dev/loop-control', constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

export interface LoopMount {
  readonly file: string;
  readonly directory: string;
  readonly readOnly: boolean;
  /** null: mount(8) finds out */
  readonly type: string | null;
  readonly options: readonly string[];
  readonly waits?: TellWait | undefined;
  readonly remarks?: TellRemark | undefined;
}

/** a large file is read three times as fast as with the kernel's 128 KiB, and small ones are no slower */
const READ_AHEAD_KIB = 512;

/** The device's own setting: the kernel chooses anew when the device is made on another file. */
function readFurtherAhead(device: string): void {
  const setting = `/sys/block/${basename(device)}/queue/read_ahead_kb`;
  try {
    if (Number(readFileSync(setting, 'utf8')) < READ_AHEAD_KIB) writeFileSync(setting, String(READ_AHEAD_KIB));
  } catch {
    // a container's /sys cannot be written: the mount is as good, only slower
  }
}

/** A loop device keeps what `blockdev --setro` said of it, also for the next file that it is made on. */
async function allowWriting(device: string, remarks: TellRemark | undefined): Promise<void> {
  if (!isDeviceReadOnly(basename(device))) return;
  try {
    await runTool('blockdev', ['--setrw', device], `cannot make ${device} writable`);
  } catch (error) {
    // it can be mounted read-only, which is said afterwards
    remarks?.((error as Error).message);
  }
}

/** Mounts. @returns the loop device @throws FusetapError; then there is no device */
export async function mountByLoop({
  file,
  directory,
  readOnly,
  type,
  options,
  waits,
  remarks,
}: LoopMount): Promise<string> {
  const making = `cannot make a loop device on ${file}`;
  const device = (
    await runTool('losetup', ['--find', '--show', ...(readOnly ? ['--read-only'] : []), file], making)
  ).trim();
  try {
    readFurtherAhead(device);
    if (!readOnly) await allowWriting(device, remarks);
    const words = [...(readOnly ? ['ro'] : []), ...options];
    const args = [...(type === null ? [] : ['-t', type]), ...(words.length === 0 ? [] : ['-o', words.join(',')])];
    await runTool('mount', [...args, device, directory], `cannot mount ${file} on ${directory}`, {
      hint: 'name the file system with --type, or choose a partition with --partition N; dmesg has what the kernel says',
      waits,
      remarks,
    });
  } finally {
    // the device is in use where that went well: it is then let go by the last who has it, whoever unmounts
    await runTool('losetup', ['--detach', device], `cannot let go of ${device}`);
  }
  return device;
}
