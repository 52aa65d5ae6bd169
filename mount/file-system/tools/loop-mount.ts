/**
 * Mounts a file system as root, by a loop device on the file. The kernel removes the device with the mount.
 */
import { accessSync, constants, readFileSync, writeFileSync } from 'node:fs';
import { basename } from 'node:path';
import { isDeviceReadOnly, isInUserNamespace } from '../../../system/proc.js';
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
  /** null: mount(8) detects it */
  readonly type: string | null;
  readonly options: readonly string[];
  readonly waits?: TellWait | undefined;
  readonly remarks?: TellRemark | undefined;
}

/** the operation of the error if no loop device can be made: in a container, for example */
export const MAKING_LOOP = 'losetup';

/** large files are read three times as fast as with the kernel's 128 KiB, and small files are not slower */
const READ_AHEAD_KIB = 512;

/** Sets the read-ahead of this device only: the kernel resets it when the device gets another file. */
function readFurtherAhead(device: string): void {
  const setting = `/sys/block/${basename(device)}/queue/read_ahead_kb`;
  try {
    if (Number(readFileSync(setting, 'utf8')) < READ_AHEAD_KIB) writeFileSync(setting, String(READ_AHEAD_KIB));
  } catch {
    // in a container /sys is not writable: the mount works, but it is slower
  }
}

/** Makes the device writable: it keeps a `blockdev --setro` of an earlier user, also when it gets another file. */
async function allowWriting(device: string, remarks: TellRemark | undefined): Promise<void> {
  if (!isDeviceReadOnly(basename(device))) return;
  try {
    await runTool('blockdev', ['--setrw', device], `cannot make ${device} writable`);
  } catch (error) {
    // it can still be mounted read-only; MountCheck tells the user
    remarks?.((error as Error).message);
  }
}

/** Mounts. @returns the loop device @throws FusetapError; no device is left then */
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
  const args = ['--find', '--show', ...(readOnly ? ['--read-only'] : []), file];
  const device = (await runTool('losetup', args, making, { operation: MAKING_LOOP })).trim();
  try {
    readFurtherAhead(device);
    if (!readOnly) await allowWriting(device, remarks);
    const words = [...(readOnly ? ['ro'] : []), ...options];
    const choices = [...(type === null ? [] : ['-t', type]), ...(words.length === 0 ? [] : ['-o', words.join(',')])];
    await runTool('mount', [...choices, device, directory], `cannot mount ${file} on ${directory}`, {
      waits,
      remarks,
    });
  } finally {
    // if the mount succeeded, the device is in use: the kernel then detaches it with the unmount
    await runTool('losetup', ['--detach', device], `cannot detach ${device}`);
  }
  return device;
}
