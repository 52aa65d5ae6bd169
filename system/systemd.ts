/**
 * What systemd has to do with a process: whether it runs here, in which of its units a process is, and whether that unit is
 * being stopped. See systemd.unit(5) and cgroups(7).
 */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';

/** how long systemd may take to answer a question, also on a machine that is busy with its shutdown */
const ANSWER_LIMIT_MS = 20_000;
/** how often to ask again, and when, if the program that asks is itself told to end */
const MOST_ASKED = 5;
const ASK_AGAIN_MS = 100;

/** Whether systemd is the init system here: the test of sd_booted(3). */
export const runsSystemd = (): boolean => existsSync('/run/systemd/system');

/** The path of a process in the tree of systemd's control groups, as `/system.slice/cron.service`; null if it cannot be read. */
export function controlGroupOf(pid: number | 'self'): string | null {
  try {
    return parseControlGroup(readFileSync(`/proc/${pid}/cgroup`, 'utf8'));
  } catch {
    return null;
  }
}

/** @param text as of /proc/PID/cgroup. With version 1 of control groups, systemd has a hierarchy of its own. */
export function parseControlGroup(text: string): string | null {
  const lines = text.split('\n').map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  const pathOf = (hierarchy: string): string | undefined => lines.find((line) => line?.[1] === hierarchy)?.[2];
  const own = pathOf('name=systemd');
  // a systemd in a container may use version 2 only, while the machine has both
  return (own === '/' ? undefined : own) ?? pathOf('') ?? own ?? null;
}

/** The unit that the path of a control group names, as `cron.service`; null if it is in none, as the kernel's threads. */
export function unitInPath(path: string): string | null {
  return path.split('/').findLast((name) => /\.(service|scope)$/.test(name)) ?? null;
}

/** The unit of a process; null where systemd does not run, or if the process is in none. */
export function unitOf(pid: number | 'self'): string | null {
  const path = runsSystemd() ? controlGroupOf(pid) : null;
  return path === null ? null : unitInPath(path);
}

/** Whether a control group belongs to the manager of a user, not to the one of the system. */
export const isOfUserManager = (path: string): boolean => /\/user@\d+\.service\//.test(path);

/** Whether the unit of this process is being stopped: by `systemctl stop`, at a shutdown, or at the end of a session. */
export async function isOwnUnitStopping(): Promise<boolean> {
  const path = runsSystemd() ? controlGroupOf('self') : null;
  const unit = path === null ? null : unitInPath(path);
  if (path === null || unit === null) return false;
  const manager = isOfUserManager(path) ? ['--user'] : [];
  const question = [...manager, 'show', '--property=ActiveState', '--value', '--', unit];
  for (let asked = 1; ; asked++) {
    const answer = await ask(question);
    if (answer !== 'interrupted' || asked === MOST_ASKED) return answer === 'deactivating';
    await delay(ASK_AGAIN_MS);
  }
}

/** @returns `interrupted`: systemd sends SIGTERM to each process that it finds in the unit, also to one that has just begun */
function ask(args: readonly string[]): Promise<string | null> {
  const options = { cwd: '/', timeout: ANSWER_LIMIT_MS, killSignal: 'SIGKILL' as const };
  return new Promise((resolve) => {
    execFile('systemctl', args, options, (error, stdout) => {
      if (error === null) resolve(stdout.trim());
      else resolve(error.signal === 'SIGTERM' ? 'interrupted' : null);
    });
  });
}
