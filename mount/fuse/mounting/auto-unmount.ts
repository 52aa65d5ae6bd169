/**
 * Unmounts the bus of an ordinary user when all its processes are gone, in whatever way they went.
 *
 *      keeper, server ──hold──► one end of a socket        a shell of three lines ──reads──► the other end
 *
 * When the last of them is gone the shell reads the end of the file, and has the helper unmount what no longer answers. It
 * takes the lock on the bus first, and waits for it for a moment: the last process may be on its way out still. Another keeper
 * that has it repairs the bus by itself, and what that has mounted must stay.
 * auto_unmount of fusermount3 is meant for that, but it looks whether the mount is dead as root, whom the kernel does not
 * let look (EACCES, 3.14), or in old versions not at all, so that it takes away a bus that came after.
 */
import { spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { socketPair } from '../../../system/libc.js';

// $1 the bus, $2 the helper, $3 the lock, $4 the directory to be removed, or nothing
const SCRIPT = [
  'read -r _',
  'exec 9<"$3" && flock -w 5 9 || exit 0',
  'test -e "$1" || "$2" -u -z -q -- "$1"',
  '[ -z "$4" ] || rmdir -- "$4"',
].join('\n');

/** What is done with a bus when all its processes are gone. */
export interface BusEnd {
  /** the lock on the bus, which they had */
  readonly lockPath: string;
  /** the directory goes with the mount: a program that writes there then meets an error */
  readonly removesDirectory: boolean;
}

/**
 * Has somebody wait for the end of the bus.
 * @param helper fusermount3
 * @returns a descriptor: the bus is taken for dead when no process has it open any more
 */
export function unmountAtEnd(mountpoint: string, helper: string, end: BusEnd): number {
  const [ours, theirs] = socketPair();
  try {
    const child = spawn(
      '/bin/sh',
      ['-c', SCRIPT, 'fusetap-unmount', mountpoint, helper, end.lockPath, end.removesDirectory ? mountpoint : ''],
      {
        stdio: [theirs, 'ignore', 'ignore'],
        // a Ctrl-C at the terminal is not for it
        detached: true,
        cwd: '/',
      },
    );
    // without it a bus whose processes are killed leaves a dead mount, which the next attach or stop clears away
    child.once('error', () => {});
    child.unref();
  } finally {
    closeSync(theirs);
  }
  return ours;
}
