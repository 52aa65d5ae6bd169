/** libvmdk, as the second judge of VMDKs. */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { isInstalled } from '../e2e/command.js';

const MOST_BYTES = 64 << 20;

/** Why it cannot be asked; false if it can. */
export function whyNoLibvmdk(): string | false {
  return isInstalled('vmdkmount') ? false : 'vmdkmount is not installed';
}

/** The disk as vmdkmount shows it. Its server ends with the mount. @param mount an empty directory */
export function readByLibvmdk(path: string, mount: string): Buffer {
  execFileSync('vmdkmount', [path, mount], { stdio: 'ignore' });
  try {
    return execFileSync('cat', [join(mount, 'vmdk1')], { maxBuffer: MOST_BYTES });
  } finally {
    execFileSync('fusermount', ['-u', '-z', mount], { stdio: 'ignore' });
  }
}
