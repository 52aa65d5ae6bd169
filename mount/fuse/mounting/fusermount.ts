/**
 * fusermount3, the setuid helper that mounts and unmounts FUSE file systems for unprivileged users. It opens /dev/fuse,
 * mounts, and sends the descriptor over the socket that _FUSE_COMMFD names.
 *
 *      keeper ──socketpair──► fusermount3 -o OPTIONS -- DIR
 *             ◄──SCM_RIGHTS── the device, as mounted
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync } from 'node:fs';
import { FusetapError } from '../../../drivers/errors.js';
import { receiveFd, socketPair } from '../../../system/libc.js';
import { findFusermount } from '../../../system/programs.js';

/** time limit of the helper, which waits only for the kernel */
const LIMIT_MS = 10_000;

/**
 * Mounts on a directory that the user may write.
 * @param options as of mount(8); the helper adds `fd`, `rootmode` and the user
 * @returns the device
 * @throws FusetapError DENIED, with the helper's message
 */
export async function mountByHelper(program: string, mountpoint: string, options: readonly string[]): Promise<number> {
  const [ours, theirs] = socketPair();
  try {
    const child = spawn(program, ['-o', options.join(','), '--', mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      env: { ...process.env, LC_ALL: 'C', _FUSE_COMMFD: '3' },
    });
    const said = collectWords(child);
    // now only the helper has this end: when the helper exits, the wait below ends
    closeSync(theirs);
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const deviceFd = await receiveFd(ours).finally(() => clearTimeout(timer));
    if (deviceFd === null) throw cannotMount(mountpoint, program, await said);
    return deviceFd;
  } finally {
    closeSync(ours);
  }
}

/** Resolves to its last line on stderr when it has ended. */
function collectWords(child: ChildProcess): Promise<string> {
  let text = '';
  child.stderr?.setEncoding('utf8').on('data', (chunk: string) => {
    text += chunk;
  });
  return new Promise((resolve) => {
    child.once('close', () => resolve(text.trim().split('\n').at(-1) ?? ''));
    child.once('error', (error) => resolve(error.message));
  });
}

function cannotMount(path: string, program: string, said: string): FusetapError {
  return new FusetapError('DENIED', `cannot mount a bus on ${path}: ${said || `${program} gave no reason`}`, {
    hint: hintFor(said, program),
    path,
  });
}

/** How to fix the helper's complaint. */
function hintFor(said: string, program: string): string {
  if (said.includes('user_allow_other')) return 'as root: echo user_allow_other >> /etc/fuse.conf';
  if (/\/dev\/fuse.*(Permission denied|Operation not permitted)/i.test(said)) {
    return 'as root: chmod 0666 /dev/fuse (the default of distributions)';
  }
  if (said.includes('no write access')) return 'choose a directory that you can write to';
  if (said.includes('too many FUSE')) return 'stop other mounts, or raise mount_max in /etc/fuse.conf';
  if (said.includes('mount failed') && process.geteuid?.() === 0) {
    return 'root without CAP_SYS_ADMIN may not mount: in a container, add the capability SYS_ADMIN';
  }
  if (said.includes('mount failed')) return `is ${program} setuid root? As root: chmod u+s ${program}`;
  return 'fusetap doctor checks this machine';
}

/**
 * Unmounts through the helper, for an unprivileged user.
 * @param lazy unmount it even if it is in use
 * @returns whether it is unmounted
 */
export function unmountByHelper(mountpoint: string, lazy: boolean): Promise<boolean> {
  const program = findFusermount();
  if (program === null) return Promise.resolve(false);
  return new Promise((resolve) => {
    const child = spawn(program, ['-u', '-q', ...(lazy ? ['-z'] : []), '--', mountpoint], { stdio: 'ignore' });
    const timer = setTimeout(() => child.kill('SIGKILL'), LIMIT_MS);
    const end = (gone: boolean): void => {
      clearTimeout(timer);
      resolve(gone);
    };
    child.once('error', () => end(false));
    child.once('exit', (status) => end(status === 0));
  });
}
