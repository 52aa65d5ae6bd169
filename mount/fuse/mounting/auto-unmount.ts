/**
 * Unmounts the bus of an ordinary user when all its processes have ended, for whatever reason.
 *
 *      keeper, server ──keep open──► one end of a socket        a short shell script ──reads──► the other end
 *
 * When the last process ends, the shell reads end-of-file and calls the helper, which unmounts the dead bus. First it
 * takes the lock on the bus. It waits up to 5 s for the lock, because the last process may still be exiting. If another
 * keeper has the lock, that keeper repairs the bus itself, and its mount must stay. fusermount3 has the option
 * auto_unmount for this, but it does not work here: it checks as root whether the mount is dead, and the kernel refuses
 * that to root (EACCES, 3.14). Old versions do not check, and would unmount the next bus.
 */
import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { socketPair } from '../../../system/libc.js';

// $1 the bus, $2 the helper, $3 the lock, $4 the directory to remove, or empty
const SCRIPT = [
  'read -r _',
  'exec 9<"$3" && flock -w 5 9 || exit 0',
  'test -e "$1" || "$2" -u -z -q -- "$1"',
  '[ -z "$4" ] || rmdir -- "$4"',
].join('\n');

/** How to clean up a bus when all its processes have ended. */
export interface BusEnd {
  /** the lock on the bus, which its processes have */
  readonly lockPath: string;
  /** also remove the directory, so that a program that still writes there gets an error */
  readonly removesDirectory: boolean;
}

/**
 * Starts a process that waits for the end of the bus, and then unmounts it.
 * @param helper fusermount3
 * @returns a descriptor: the bus counts as dead when no process has it open any more
 */
export function unmountAtEnd(mountpoint: string, helper: string, end: BusEnd): number {
  const [ours, theirs] = socketPair();
  try {
    const child = spawn(
      '/bin/sh',
      ['-c', SCRIPT, 'fusetap-unmount', mountpoint, helper, end.lockPath, end.removesDirectory ? mountpoint : ''],
      {
        stdio: [theirs, 'ignore', 'ignore'],
        // so that Ctrl-C at the terminal does not end it
        detached: true,
        cwd: '/',
      },
    );
    // if it cannot start: a killed bus leaves a dead mount, which the next attach or stop removes
    child.once('error', () => {});
    child.unref();
  } finally {
    closeSync(theirs);
  }
  return ours;
}
