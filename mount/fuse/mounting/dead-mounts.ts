/**
 * Unmounts dead buses from a directory, and never one that is alive.
 *
 *      top mount ──► opened (O_PATH) ──► a helper asks it for a file, through the descriptor
 *                                         ENOTCONN, ECONNABORTED: dead, that very mount is detached; look again
 *                                         any other answer, or none in time: alive, nothing is touched
 *
 * A bus that hangs is alive: its server is being replaced, or its keeper is stopped, and acknowledged writes may be
 * only in its memory. A child process asks the mount, because the call may block for ever.
 */
import { spawn } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { FusetapError } from '../../../drivers/errors.js';
import { MNT_DETACH, umount2 } from '../../../system/libc.js';
import { type Mount, readFdinfo } from '../../../system/proc.js';
import { unmountByHelper } from './fusermount.js';
import { busMounts } from './unmount.js';

/** a dead mount answers at once; the limit allows for a busy machine */
const ANSWER_LIMIT_MS = 5_000;
/** see open(2); Node has no name for it */
const O_PATH = 0o10000000;
/** what stat(1) prints for ENOTCONN and ECONNABORTED, with glibc and with musl */
const DEAD = /transport endpoint is not connected|socket not connected|connection abort/i;

/**
 * Unmounts the dead buses on the path, from the top.
 * @returns how many dead buses were unmounted, and the live bus below them, or null
 * @throws FusetapError DENIED if a dead bus cannot be unmounted
 */
export async function clearDeadMounts(mountpoint: string): Promise<{ cleared: number; alive: Mount | null }> {
  for (let cleared = 0; ; cleared++) {
    const [top] = await busMounts(mountpoint);
    if (top === undefined) return { cleared, alive: null };
    const root = openSync(mountpoint, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
    try {
      // if another mount has appeared on top meanwhile: another process is at work here
      const isTop = readFdinfo('self', root)?.mountId === top.id;
      if (!isTop || !(await isDead(root, top))) return { cleared, alive: top };
      await detach(root, mountpoint);
    } finally {
      closeSync(root);
    }
    if ((await busMounts(mountpoint))[0]?.id === top.id) {
      throw new FusetapError('DENIED', `cannot unmount the dead bus on ${mountpoint}`, {
        hint: `unmount it as the user who mounted it, or as root: umount -l ${mountpoint}`,
        path: mountpoint,
      });
    }
  }
}

/** The bus on top of the path if it is alive, else null. */
export async function findLiveBus(mountpoint: string): Promise<Mount | null> {
  const [top] = await busMounts(mountpoint);
  if (top === undefined) return null;
  const root = openSync(mountpoint, O_PATH | constants.O_DIRECTORY | constants.O_NOFOLLOW);
  try {
    return (await isDead(root, top)) ? null : top;
  } finally {
    closeSync(root);
  }
}

/** Detaches the mount that the descriptor refers to, even if something else was mounted on the path since. */
async function detach(root: number, mountpoint: string): Promise<void> {
  if (umount2(`/proc/self/fd/${root}`, MNT_DETACH) === 0) return;
  if (!(await unmountByHelper(mountpoint, false))) await unmountByHelper(mountpoint, true);
}

/**
 * Whether the connection of a mount has ended. Root asks a mount of another user as that user: everybody else gets
 * EACCES from the kernel, whether it is dead or alive.
 */
function isDead(root: number, { owner }: Mount): Promise<boolean> {
  const isRoot = process.geteuid?.() === 0;
  const child = spawn('stat', ['--', '/proc/self/fd/3/.fusetap'], {
    stdio: ['ignore', 'ignore', 'pipe', root],
    env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LC_ALL: 'C' },
    cwd: '/',
    ...(isRoot && owner !== null && owner.uid !== 0 && owner),
  });
  return new Promise((resolve) => {
    let said = '';
    const end = (dead: boolean): void => {
      clearTimeout(timer);
      // the child may block in the kernel as long as the mount hangs: do not wait for it
      child.kill('SIGKILL');
      child.unref();
      child.stderr?.destroy();
      resolve(dead);
    };
    const timer = setTimeout(() => end(false), ANSWER_LIMIT_MS);
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    child.once('error', () => end(false));
    child.once('close', () => end(DEAD.test(said)));
  });
}
