/**
 * Who runs the programs of a test: root, an ordinary user, or the root of a user namespace. The test itself is root's
 * and looks on from outside.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, chownSync, existsSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isInstalled } from './command.js';

/** a user who has nothing, and whom nobody else is; on Debian it is called nobody */
export const USER_ID = 65_534;

/** How programs run as somebody. */
export interface Identity {
  /** the words to run a program in a directory with */
  words(directory: string, program: string, args: readonly string[]): [program: string, args: string[]];
  /** gives a file or directory of the test to him */
  give(path: string): void;
  /** what is mounted, as he sees it */
  readonly mountinfo: string;
  end(): void;
}

export interface Runner {
  readonly name: 'root' | 'user' | 'namespace';
  /** what tests are called by; nothing for root */
  readonly label: string;
  /** the kernel lets him have passthrough */
  readonly passthrough: boolean;
  /** why this machine cannot run tests so; false where it can */
  whyNot(): string | false;
  enter(): Promise<Identity>;
}

const setpriv = (userId: number) =>
  ['setpriv', `--reuid=${userId}`, `--regid=${userId}`, '--clear-groups', '--'] as const;
/** the words to run a program as that user */
export const AS_USER = setpriv(USER_ID);
/** and in a directory, where entering a namespace takes one to the root directory */
const INSIDE = ['sh', '-c', 'cd "$1" && shift && exec "$@"', 'sh'];
/** a mount namespace that does not keep what is unmounted outside: the runner of tests has the mounts of all shared */
const FOLLOWING = ['--propagation', 'slave'];
/** what a process does that only keeps a namespace, and goes with the test that began it */
const HOLD = 'echo inside; exec setpriv --pdeathsig KILL sleep 600';

const rootIdentity: Identity = {
  words: (_, program, args) => [program, [...args]],
  give: () => {},
  mountinfo: '/proc/self/mountinfo',
  end: () => {},
};

export const ROOT: Runner = {
  name: 'root',
  label: '',
  passthrough: true,
  whyNot: () => false,
  enter: async () => rootIdentity,
};

export const USER: Runner = {
  name: 'user',
  label: ', as a user',
  passthrough: false,
  whyNot: () => whyNoUser('setpriv', 'fusermount3'),
  enter: async () => {
    openTheWay();
    const [program, ...words] = AS_USER;
    return { ...rootIdentity, words: (_, own, args) => [program, [...words, own, ...args]], give: giveToUser };
  },
};

export const NAMESPACE: Runner = {
  name: 'namespace',
  label: ', in a user namespace',
  passthrough: false,
  whyNot: () => whyNoUser('setpriv', 'unshare', 'nsenter') || whyNoNamespace(),
  enter: async () => {
    openTheWay();
    const [program, ...words] = AS_USER;
    const holder = await hold(program, [...words, 'unshare', '-U', '-r', '-m', ...FOLLOWING, 'sh', '-c', HOLD]);
    const enter = ['nsenter', '-t', `${holder.pid}`, '-U', '-m', '--preserve-credentials', '--'];
    return {
      words: (directory, own, args) => [program, [...words, ...enter, ...INSIDE, directory, own, ...args]],
      give: giveToUser,
      mountinfo: `/proc/${holder.pid}/mountinfo`,
      end: () => void holder.kill('SIGKILL'),
    };
  },
};

/** An ordinary user where /etc/fuse.conf says that users may let others in; the machine's own file stays as it is. */
export interface PermittedUser {
  readonly runner: Runner;
  /** the words to run a program there as somebody else, in the root directory */
  wordsAs(userId: number, program: string, args: readonly string[]): [program: string, args: string[]];
}

/** Why there can be no such place here; false where there can. */
export const whyNotPermitted = (): string | false =>
  whyNoUser('setpriv', 'fusermount3', 'unshare', 'nsenter') ||
  (existsSync('/etc/fuse.conf') ? false : 'there is no /etc/fuse.conf to lay another one over');

/** Makes the place: a mount namespace, for as long as the runner's identity lasts. */
export async function permitAllowOther(): Promise<PermittedUser> {
  openTheWay();
  const own = 'own=$(mktemp); echo user_allow_other > "$own"; chmod 644 "$own"';
  const script = `set -e; ${own}; mount --bind "$own" /etc/fuse.conf; rm "$own"; ${HOLD}`;
  const holder = await hold('unshare', ['-m', ...FOLLOWING, 'sh', '-c', script]);
  const enter = ['-t', `${holder.pid}`, '-m', '--'];
  const identity: Identity = {
    words: (directory, program, args) => ['nsenter', [...enter, ...INSIDE, directory, ...AS_USER, program, ...args]],
    give: giveToUser,
    mountinfo: `/proc/${holder.pid}/mountinfo`,
    end: () => void holder.kill('SIGKILL'),
  };
  return {
    runner: { ...USER, enter: async () => identity },
    wordsAs: (userId, program, args) => ['nsenter', [...enter, ...setpriv(userId), program, ...args]],
  };
}

function giveToUser(path: string): void {
  chownSync(path, USER_ID, USER_ID);
}

/** A process that a namespace lives for as long as. */
async function hold(program: string, args: readonly string[]): Promise<ChildProcess> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  await Promise.race([once(child.stdout, 'data'), once(child, 'exit')]);
  if (child.exitCode !== null) throw new Error(`no namespace: exit status ${child.exitCode}`);
  child.stdout.destroy();
  return child;
}

/** Lets the user come to what he needs: the test's directory, and the device, which distributions have as 0666. */
function openTheWay(): void {
  const directory = tmpdir();
  const { mode } = statSync(directory);
  if ((mode & 0o001) === 0) chmodSync(directory, mode | 0o011);
  if ((statSync('/dev/fuse').mode & 0o777) !== 0o666) chmodSync('/dev/fuse', 0o666);
}

function whyNoUser(...programs: string[]): string | false {
  const missing = programs.filter((program) => !isInstalled(program));
  if (missing.length > 0) return `not installed: ${missing.join(', ')}`;
  for (const path of [fileURLToPath(import.meta.url), process.execPath, dirname(tmpdir())]) {
    const closed = closedAbove(path);
    if (closed !== null) return `an ordinary user cannot come to ${closed}`;
  }
  return existsSync('/dev/fuse') ? false : 'there is no /dev/fuse';
}

function closedAbove(path: string): string | null {
  for (let at = path; at !== '/'; at = dirname(at)) if ((statSync(at).mode & 0o001) === 0 && at !== path) return at;
  return null;
}

function whyNoNamespace(): string | false {
  try {
    const [program, ...words] = AS_USER;
    execFileSync(program, [...words, 'unshare', '-U', '-r', '-m', 'true'], { stdio: 'ignore' });
    return false;
  } catch {
    return 'this kernel gives ordinary users no user namespaces';
  }
}
