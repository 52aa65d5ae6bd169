/**
 * A file system mounted as root does it: by a loop device on the file. The device goes by itself with the mount.
 */
import { accessSync, constants } from 'node:fs';
import { isInUserNamespace } from '../../../system/proc.js';
import { runTool } from './run-tool.js';

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
}

/** Mounts. @returns the loop device @throws FusetapError; then there is no device */
export async function mountByLoop({ file, directory, readOnly, type, options }: LoopMount): Promise<string> {
  const making = `cannot make a loop device on ${file}`;
  const device = (
    await runTool('losetup', ['--find', '--show', ...(readOnly ? ['--read-only'] : []), file], making)
  ).trim();
  try {
    const words = [...(readOnly ? ['ro'] : []), ...options];
    const args = [...(type === null ? [] : ['-t', type]), ...(words.length === 0 ? [] : ['-o', words.join(',')])];
    await runTool('mount', [...args, device, directory], `cannot mount ${file} on ${directory}`, {
      hint: 'name the file system with --type, or choose a partition with --partition N; dmesg has what the kernel says',
    });
  } finally {
    // the device is in use where that went well: it is then let go by the last who has it, whoever unmounts
    await runTool('losetup', ['--detach', device], `cannot let go of ${device}`);
  }
  return device;
}
